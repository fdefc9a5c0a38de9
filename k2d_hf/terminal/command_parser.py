"""The parser of the command line: an error of typing is one line, with the nearest valid word."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

MISTYPED = 2  # exit status


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line; options are written out, so that a new one never changes an old command.

    `--max_steps` is `--max-steps`, as in transformers' scripts. What is no command and no option is answered before
    what is missing, with the nearest that there is.
    """

    commands: Any = None  # of the whole command
    more_help: Callable[[], str] | None = None  # makes the end of the help
    more_options: Callable[[Any], None] | None = None  # adds options that take long to list; called for an unknown one

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def format_help(self) -> str:
        """As argparse does, with `more_help` at the end."""
        return super().format_help() + (f"\n{self.more_help()}\n" if self.more_help is not None else "")

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with `MISTYPED`."""
        self.exit(MISTYPED, f"k2d: {message}; `{self.prog} --help` has more\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, once every word that should be an option or a command is one."""
        words = [_dashed(word) for word in (sys.argv[1:] if args is None else args)]
        own = words[: words.index("--")] if "--" in words else words
        own = own if self.commands is None else own[: self._check_command(words)]
        unknown = [option for option in map(_option, own) if option and option not in self._option_string_actions]
        if unknown and self.more_options is not None:
            self.more_options(self)
            unknown = [option for option in unknown if option not in self._option_string_actions]
        if unknown:
            self.error(f"unrecognized arguments: {unknown[0]}{_nearest(unknown[0], self._option_string_actions)}")
        return super().parse_known_args(words, namespace)

    def _check_command(self, words: Sequence[str]) -> int:
        """The place of the command among the words; an unknown one is an error."""
        place = next((place for place, word in enumerate(words) if not word.startswith("-")), len(words))
        if place < len(words) and words[place] not in self.commands.choices:
            known = list(self.commands.choices)
            hint = _nearest(words[place], known) or f"; choose one of {', '.join(known)}"
            self.error(f"argument COMMAND: invalid choice: {words[place]!r}{hint}")
        return place


def _option(word: str) -> str:
    """The long option that a word is, without its value; empty for another word."""
    return word.partition("=")[0] if word.startswith("--") and word != "--" else ""


def _dashed(word: str) -> str:
    option = _option(word)
    return option.replace("_", "-") + word[len(option) :]


def _nearest(word: str, known: Iterable[str]) -> str:
    names = {name.lstrip("-"): name for name in known}  # all begin with dashes
    near = [name for name in names if name.startswith(word.lstrip("-"))]
    near = near or difflib.get_close_matches(word.lstrip("-"), names, n=1)
    return f"; did you mean {names[near[0]]}?" if near else ""
