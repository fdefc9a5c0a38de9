"""Transcripts as HTML: by script, and where two of them differ by operation. All text that goes in is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from markupsafe import Markup, escape

from k2d_hf.reporting.differences import Change, Part, cut_text, differences, script_runs
from k2d_hf.scoring.writing import HAN, KANA, LATIN, scripts_of

EAST_ASIAN = ("zh", "ja", "ko", "yue")
_NAMES = {"zh": HAN, "ja": KANA, "ko": "Hangul", "latin": LATIN}  # of the kinds of `script_runs`
LEFT_OUT = Markup('<span class="cut"> ... the rest is left out</span>')
NOTHING = Markup('<span class="nothing">(nothing)</span>')


class Tinting:
    """Writes transcripts; `language` is the code of the recipe, by which stretches of a script are declared."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        self.scripts = scripts_of(language) if language else frozenset()
        self.han = language if language in EAST_ASIAN else "zh"
        self._written: dict[str, str] = {}

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and class of each script that was written so far."""
        return sorted(self._written.items(), key=lambda named: (named[1] == "latin", named))

    def plain(self, text: str | None) -> Markup:
        """A transcript by itself."""
        shown, cut = cut_text(text or "")
        return (self._tinted(shown) + (LEFT_OUT if cut else Markup())) if shown.strip() else NOTHING

    def compared(self, base: str, other: str) -> Markup:
        """`other`, marked where it is not `base`: what is left out, added, or stands in place of something."""
        (base, cut_base), (other, cut_other) = cut_text(base), cut_text(other)
        marked = Markup().join(self._change(change) for change in differences(base, other))
        if not other.strip():
            marked = NOTHING + Markup(" ") + marked
        return marked + (LEFT_OUT if cut_base or cut_other else Markup())

    def _change(self, change: Change) -> Markup:
        before, after = self._parts(change.before), self._parts(change.after)
        if change.kind == "equal":
            return after
        if change.kind == "deletion":
            return Markup("<del>{}</del> ").format(before)
        if change.kind == "insertion":
            return Markup("<ins>{}</ins>").format(after)
        return Markup('<span class="sub"><del>{}</del><ins>{}</ins></span>').format(before, after)

    def _parts(self, parts: Sequence[Part]) -> Markup:
        """Neighbours that are alike go together: an element a letter would make a page of megabytes."""
        marked = Markup()
        for differs, alike in groupby(parts, attrgetter("differs")):
            text = self._tinted("".join(part.text for part in alike))
            marked += Markup("<b>{}</b>").format(text) if differs else text
        return marked

    def _tinted(self, text: str) -> Markup:
        return Markup().join(self._run(run, script) for run, script in script_runs(text))

    def _run(self, text: str, script: str | None) -> Markup:
        if script is None:
            return escape(text)
        name = _NAMES.get(script, script)
        language = {"zh": self.han, "ja": "ja", "ko": "ko"}.get(script, self.language if name in self.scripts else None)
        kind = {LATIN: "latin", HAN: "han", KANA: "han", "Hangul": "han"}.get(name, "letters")
        self._written[name] = kind
        # what is English has the language of the page
        declared = Markup(' lang="{}"').format(language) if language not in (None, "en") else Markup()
        return Markup('<span class="{}"{}>{}</span>').format(kind, declared, text)
