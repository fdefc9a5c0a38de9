"""Errors where the language changes, and words in the script of the other language: what a mixed error rate hides.

A point-of-interest error rate (PIER, arXiv 2501.09512) counts the errors of one alignment at chosen reference tokens
alone, over the number of these tokens. PIER's own are the words of the embedded language. Here they are the tokens
beside a change of language, so that both languages count. A language is told by its script alone: where two are written
in one, such as Spanish and English, there is no switch point, and none of these figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from k2d_hf.scoring.error_rates import ErrorCounts, alignment, counts_of
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.scoring.writing import DIGITS, HAN, KANA, script_of

Direction = tuple[str, str]  # two scripts: from the first to the second
_SCRIPTS = {DIGITS: None, KANA: HAN}  # digits are of no language; Japanese mixes kana and Han within a word


@dataclass(frozen=True)
class SwitchingErrors:
    """Errors at switch points and away from them, and reference tokens written in another script.

    A token is at a switch point if it stands directly before or after a change of script in the reference, digits
    passed over; all others, digits among them, are away. A token between two changes counts in both directions, and
    once in `at`.
    """

    at: ErrorCounts = ErrorCounts()
    away: ErrorCounts = ErrorCounts()
    directions: Mapping[Direction, ErrorCounts] = field(default_factory=dict)
    crossed: Mapping[Direction, int] = field(default_factory=dict)  # tokens of a script written in another
    tokens: Mapping[str, int] = field(default_factory=dict)  # reference tokens by script

    def translated(self, direction: Direction) -> ErrorCounts:
        """Tokens of the first script that stand in the second, as substitutions, over all tokens of the first."""
        count, of = self.crossed.get(direction, 0), self.tokens.get(direction[0], 0)
        return ErrorCounts(substitutions=count, reference_length=of)

    def __add__(self, other: SwitchingErrors) -> SwitchingErrors:
        found = self.directions.keys() | other.directions.keys()
        none = ErrorCounts()
        return SwitchingErrors(
            self.at + other.at,
            self.away + other.away,
            {one: self.directions.get(one, none) + other.directions.get(one, none) for one in sorted(found)},
            dict(Counter(self.crossed) + Counter(other.crossed)),
            dict(Counter(self.tokens) + Counter(other.tokens)),
        )


def switching_errors(reference: str, hypothesis: str) -> SwitchingErrors:
    """Errors of one example by where they are, from the alignment of the mixed error rate; the sum is that rate's.

    A substitution or deletion is where its reference token is. An insertion is where the reference token behind it is,
    at the end where the last is, as PIER's own program has it.

    `crossed` counts the substitutions of a token by one of another script: silent translation, as where `meeting` has
    become a character of 會議. It cannot tell a translation from a word spelt by its sound or simply misheard. It sees
    none within one script, and no token that the alignment deletes or inserts: of a translation into fewer tokens only
    as many count, so that one direction cannot be held against the other.

    >>> errors = switching_errors("我們開 meeting 吧", "我们开会议吧")
    >>> errors.at, errors.crossed
    (ErrorCounts(substitutions=1, deletions=0, insertions=1, reference_length=3), {('Latin', 'Han'): 1})
    """
    tokens, written = mixed_tokens(reference), mixed_tokens(hypothesis)
    scripts = list(map(language_script, tokens))
    directions = _directions(scripts)
    tags: dict[Direction | bool, list[str]] = {}
    crossed: Counter[Direction] = Counter()
    for edit in alignment(tokens, written):
        beside = directions.get(min(edit.src_pos, len(tokens) - 1), ())
        groups: tuple[Direction | bool, ...] = (bool(beside), *beside)
        for group in groups:
            tags.setdefault(group, []).append(edit.tag)
        if edit.tag == "replace":
            there, here = scripts[edit.src_pos], language_script(written[edit.dest_pos])
            if there is not None and here is not None and there != here:
                crossed[there, here] += 1
    lengths = Counter(one for beside in directions.values() for one in beside)
    return SwitchingErrors(
        counts_of(tags.get(True, ()), len(directions)),
        counts_of(tags.get(False, ()), len(tokens) - len(directions)),
        {one: counts_of(tags.get(one, ()), lengths[one]) for one in sorted(lengths)},
        dict(crossed),
        dict(Counter(filter(None, scripts))),
    )


def language_script(token: str) -> str | None:
    """The script that tells the language of a token of `mixed_tokens`; None of digits, which are of any."""
    script = script_of(token)
    return _SCRIPTS.get(script, script)


def _directions(scripts: list[str | None]) -> dict[int, tuple[Direction, ...]]:
    """The changes that a token stands beside, one or two, by its index; tokens beside none are left out."""
    found: dict[int, tuple[Direction, ...]] = {}
    for (before, old), (after, new) in pairwise(_known(scripts)):
        if old != new:
            for index in (before, after):
                found[index] = (*found.get(index, ()), (old, new))
    return found


def _known(scripts: list[str | None]) -> Iterator[tuple[int, str]]:
    return ((index, script) for index, script in enumerate(scripts) if script is not None)
