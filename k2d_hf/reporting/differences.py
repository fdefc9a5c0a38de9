"""The differences of two transcripts: substitutions, insertions and deletions.

Aligned over mixed tokens, so what is marked is what the mixed error rate counts: case, punctuation, blanks and
Traditional against Simplified characters are no differences. Within two words that are alike, the letters that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import regex
from rapidfuzz.distance import Levenshtein

from k2d_hf.scoring.text import (
    APOSTROPHES,
    CHARACTERS,
    CLUSTER,
    INVISIBLE,
    UNSPACED,
    WITHIN_WORDS,
    mixed_tokens,
    to_simplified,
)
from k2d_hf.scoring.writing import script_of

SHOWN_TOKENS = 4000  # of a pair of transcripts; a longer one is cut
ALIKE = 0.5  # of two words: similarity from which on their letters are compared

# Tokens as they are written: in a word may be what draws it, and a mark that is folded away.
_LETTER = rf"[[\p{{L}}\p{{M}}{INVISIBLE}]--[{CHARACTERS}{UNSPACED}]]"
_TOKEN = regex.compile(
    rf"(?V1)<\|[^|]*\|>|[{CHARACTERS}]|{CLUSTER}"
    rf"|(?<!{_LETTER}){_LETTER}(?:\.{_LETTER})+(?!{_LETTER})"
    rf"|{_LETTER}++(?:(?:[{APOSTROPHES}]|{WITHIN_WORDS}){_LETTER}++)*+|\p{{N}}++(?:[.,]\p{{N}}++)*+"
)
_OTHER = rf"[\p{{L}}--[{CHARACTERS}\p{{Latin}}]]"
_SCRIPTS = regex.compile(
    rf"(?V1)(?P<ja>[\p{{Hiragana}}\p{{Katakana}}\u30fc]+)|(?P<zh>\p{{Han}}+)|(?P<ko>\p{{Hangul}}+)"
    rf"|(?P<latin>\p{{Latin}}[\p{{Latin}}\p{{M}}'\u2019]*(?:[ -]+\p{{Latin}}[\p{{Latin}}\p{{M}}'\u2019]*)*)"
    rf"|(?P<other>{_OTHER}[{_OTHER}\p{{M}}{INVISIBLE}'\u2019]*(?:[ -]+{_OTHER}[{_OTHER}\p{{M}}{INVISIBLE}'\u2019]*)*)"
)
_CLUSTER = regex.compile(r"\X")


@dataclass(frozen=True)
class Part:
    """A stretch of text, and whether it is what differs within two words that are alike."""

    text: str
    differs: bool = False


@dataclass(frozen=True)
class Change:
    """A stretch of an alignment: `equal`, `substitution`, `deletion` or `insertion`.

    `before` is what the base has there, empty where the other has an insertion; `after` what the other has.
    """

    kind: str
    before: list[Part]
    after: list[Part]


class _Token(NamedTuple):
    """A token as it was written, with what follows it up to the next, and what it counts as."""

    text: str
    trailing: str
    key: tuple[str, ...]


def differences(base: str, other: str) -> list[Change]:
    """How `other` differs from `base`, in order; the `after` of all changes make up `other`.

    Both texts in full: cut them with `cut_text` first where they may be long.
    """
    lead, here = _tokens(base)
    lead, there = _tokens(other)
    changes = [Change("equal", [], [Part(lead)])] if lead else []
    for equal, old, new in _stretches(here, there):
        if equal:
            changes.append(Change("equal", [], [Part(_bare(new) + new[-1].trailing)]))
        elif not new:
            changes.append(Change("deletion", [Part(_bare(old))], []))
        else:
            before, after = _compared(old, new) if old else ([], [Part(_bare(new))])
            changes.append(Change("substitution" if old else "insertion", before, after))
            if new[-1].trailing:
                changes.append(Change("equal", [], [Part(new[-1].trailing)]))
    return changes


def script_runs(text: str) -> list[tuple[str, str | None]]:
    """Stretches of `text` with `zh`, `ja`, `ko` (by their own characters alone), `latin`, or another script's name.

    None for all else.
    """
    runs: list[tuple[str, str | None]] = []
    end = 0
    for match in _SCRIPTS.finditer(text):
        if match.start() > end:
            runs.append((text[end : match.start()], None))
        kind = match.lastgroup
        runs.append((match.group(), script_of(match.group()[0]) if kind == "other" else kind))
        end = match.end()
    return [*runs, (text[end:], None)] if end < len(text) else runs


def cut_text(text: str, most: int = SHOWN_TOKENS) -> tuple[str, bool]:
    """At most so many tokens of `text`, and whether any were left out."""
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count == most:
            return text[: match.start()], True
    longest = 20 * most  # characters that are no tokens take room as well
    return text[:longest], len(text) > longest


def _stretches(here: list[_Token], there: list[_Token]) -> list[tuple[bool, list[_Token], list[_Token]]]:
    """Whether two stretches of tokens are equal, and both.

    What is deleted or inserted beside a substitution goes with it, unless it is the longer of the two: two words that
    were written as one are one change to a reader.
    """
    codes: dict[tuple[str, ...], int] = {}
    numbers = [[codes.setdefault(token.key, len(codes)) for token in tokens] for tokens in (here, there)]
    stretches: list[tuple[bool, list[_Token], list[_Token]]] = []
    tag_before = ""
    for step in Levenshtein.opcodes(*numbers):
        old, new = here[step.src_start : step.src_end], there[step.dest_start : step.dest_end]
        if {step.tag, tag_before} in ({"replace", "insert"}, {"replace", "delete"}):
            _, older, newer = stretches[-1]
            replaced, extra = (new, max(older, newer, key=len)) if step.tag == "replace" else (newer, old or new)
            if len(extra) <= len(replaced):
                stretches[-1] = (False, older + old, newer + new)
                tag_before = "both"
                continue
        stretches.append((step.tag == "equal", old, new))
        tag_before = step.tag
    return stretches


def _tokens(text: str) -> tuple[str, list[_Token]]:
    """What stands before the first token, and the tokens."""
    simplified = to_simplified(text)
    if len(simplified) != len(text):
        simplified = text
    matches = [(match.span(), tuple(mixed_tokens(simplified[slice(*match.span())]))) for match in _TOKEN.finditer(text)]
    spans = [(span, key) for span, key in matches if key]
    starts = [start for (start, _), _ in spans] + [len(text)]
    ends = zip(spans, starts[1:], strict=True)
    return text[: starts[0]], [_Token(text[start:stop], text[stop:end], key) for ((start, stop), key), end in ends]


def _bare(tokens: Sequence[_Token]) -> str:
    """Their text without what follows the last."""
    return "".join(token.text + token.trailing for token in tokens[:-1]) + tokens[-1].text


def _compared(old: Sequence[_Token], new: Sequence[_Token]) -> tuple[list[Part], list[Part]]:
    """Parts of two stretches of tokens: one for one where there are as many, else as if each were one word."""
    if len(old) != len(new):
        return _letters(_bare(old), _bare(new))
    before: list[Part] = []
    after: list[Part] = []
    for one, two in zip(old, new, strict=True):
        letters, others = _letters(one.text, two.text)
        before += [*letters, Part(one.trailing)]
        after += [*others, Part(two.trailing)]
    return [part for part in before[:-1] if part.text], [part for part in after[:-1] if part.text]


def _letters(one: str, two: str) -> tuple[list[Part], list[Part]]:
    """Two words in parts, those that differ marked; in one part each where they have little in common."""
    if len(one) < 2 or len(two) < 2 or Levenshtein.normalized_similarity(one.lower(), two.lower()) < ALIKE:
        return [Part(one)], [Part(two)]
    # By letters with their marks, which no element may part, and by what `lower` gives for each: it makes two of some.
    letters, others = _CLUSTER.findall(one), _CLUSTER.findall(two)
    steps = Levenshtein.opcodes([letter.lower() for letter in letters], [letter.lower() for letter in others])
    before = [Part("".join(letters[step.src_start : step.src_end]), step.tag != "equal") for step in steps]
    after = [Part("".join(others[step.dest_start : step.dest_end]), step.tag != "equal") for step in steps]
    return [part for part in before if part.text], [part for part in after if part.text]
