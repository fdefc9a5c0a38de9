"""Every field of the Trainer's arguments as an option of `k2d distil`, as transformers' own scripts have them.

Help does not list the hundred and more of them, and they take transformers to be known: only a command line with an
option that is not among the listed ones asks for them.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from k2d_hf.files.settings import hints_of, takes_list


def add_trainer_options(parser: argparse.ArgumentParser) -> None:
    """Offer each field of `K2DTrainingArguments` that is no option of `parser` yet; what is given is text, or a list.

    `--bf16` alone is true; `--no-dataloader-pin-memory` is false, of a field that is true by default.
    """
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    hints = hints_of(K2DTrainingArguments)
    known = parser._option_string_actions
    for field in dataclasses.fields(K2DTrainingArguments):
        name = field.name.replace("_", "-")
        hidden: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        switch = hints[field.name] is bool
        if f"--{name}" not in known:
            many = "+" if takes_list(hints[field.name], text=False) else None
            parser.add_argument(
                f"--{name}", **({"nargs": "?", "const": "true"} if switch else {"nargs": many}), **hidden
            )
        if switch and field.default is True and f"--no-{name}" not in known:
            parser.add_argument(f"--no-{name}", action="store_const", const="false", **hidden)
