"""Facts for a card: from chunks, training arguments and installed versions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import metadata
from typing import Any

import regex

from k2d_hf.audio.reader import ADVICE
from k2d_hf.data.chunk_schema import SEGMENT_VERDICTS, SOURCE, rows_of
from k2d_hf.data.segment_verdicts import kept_seconds as seconds_of_kept
from k2d_hf.publishing.card_names import hub_languages
from k2d_hf.publishing.model_card_data import DataFacts
from k2d_hf.scoring.writing import HAN, LATIN, NOT_LATIN, scripts_of
from k2d_hf.validation.combining import is_combined

VERSIONS = ("k2d_hf", "transformers", "torch", "datasets")
LOSS = ("ce_weight", "kl_weight", "auxiliary_weight", "temperature")
MEASURES = ("mer", "per", "distance")
SEGMENT_COLUMNS = ("segments", SEGMENT_VERDICTS)
ROWS_AT_ONCE = 10_000
MIXED_SHARE = 0.05  # of words and characters, from which on a second language is one of the student's
_HAN = regex.compile(r"\p{Han}")
_LATIN = regex.compile(r"\p{Latin}[\p{Latin}\p{M}'’]*")
_CHOICE = re.compile(r"[a-z][a-z0-9_.-]{0,40}")
_REASON = re.compile("|".join([r"teacher loops|distance > \d\.\d+", *map(re.escape, ADVICE)]))


def data_facts(rows: Any) -> DataFacts | None:
    """Figures of a `datasets.Dataset` of chunks; None for anything else.

    It is read in batches, as a filter would write a file beside the user's data.
    """
    from datasets import Dataset

    if not isinstance(rows, Dataset) or "duration" not in rows.column_names:
        return None
    columns = ("duration", "keep", "drop_reason", "language", "text", SOURCE, *MEASURES, *SEGMENT_COLUMNS)
    present = rows.select_columns([name for name in columns if name in rows.column_names]).with_format(None)
    chunks = kept_count = 0
    seconds = kept_seconds = 0.0
    dropped: Counter[str] = Counter()
    languages: set[str | None] = set()
    sums = dict.fromkeys(MEASURES, 0.0)
    counts: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    given: dict[str, float] = {}
    for rows_read in present.iter(batch_size=ROWS_AT_ONCE):
        batch = _labelled_by_teacher(rows_read, given, languages)
        chunks += len(batch["duration"])
        kept = [bool(keep) for keep in batch.get("keep", [True] * len(batch["duration"]))]
        kept_count += sum(kept)
        seconds += math.fsum(batch["duration"])
        kept_seconds += math.fsum(map(seconds_of_kept, rows_of({**batch, "keep": kept})))
        for reason in filter(None, batch.get("drop_reason", ())):
            ours = _REASON.fullmatch(reason) or is_combined(reason)
            dropped[reason if ours else "other reasons"] += 1  # one from elsewhere may hold anything, such as a path
        languages |= {language for language, k in zip(batch.get("language", ()), kept, strict=False) if k}
        for text, k in zip(batch.get("text", ()), kept, strict=False):
            if k and text:
                scripts[HAN] += len(_HAN.findall(text))
                scripts[LATIN] += len(_LATIN.findall(text))
        for name in MEASURES:
            pairs = zip(batch.get(name, ()), kept, strict=False)
            values = [value for value, k in pairs if k and value is not None and math.isfinite(value)]
            sums[name] += math.fsum(values)
            counts[name] += len(values)
    validated = "keep" in present.column_names
    return DataFacts(
        chunks=chunks,
        seconds=seconds,
        kept=kept_count if validated else None,
        kept_seconds=kept_seconds if validated else None,
        dropped=dict(dropped.most_common()),
        languages=hub_languages(languages),
        mixed_in=mixed_in(languages, scripts),
        means={name: sums[name] / counts[name] for name in MEASURES if counts[name]},
        given=dict(sorted(given.items())),
    )


def _labelled_by_teacher(
    rows: dict[str, list[Any]], given: dict[str, float], languages: set[str | None]
) -> dict[str, Any]:
    """Those of some rows that the teacher labelled; seconds of the others are added to `given`, by source.

    Neither are utterances without a length that name none.
    """
    sources = rows.get(SOURCE, [None] * len(rows["duration"]))
    for at, source in enumerate(sources):
        if source is not None:
            given[source] = given.get(source, 0.0) + (rows["duration"][at] or 0.0)
            languages |= {rows["language"][at]} if "language" in rows else set()
    own = [at for at, source in enumerate(sources) if source is None and rows["duration"][at] is not None]
    return rows if len(own) == len(sources) else {name: [of[at] for at in own] for name, of in rows.items()}


def mixed_in(languages: Iterable[str | None], scripts: Mapping[str, int]) -> list[str]:
    """The language that is mixed into speech of others, by the script of words (Latin) and characters (Han) in labels.

    Latin words in labels of a language that is written in another script are taken for English, Han characters in those
    of one that is not written with them for Mandarin, if they are a twentieth of both or more: fewer are names.
    """
    given, both = {language for language in languages if language}, sum(scripts.values())
    shares = {script: count / both for script, count in scripts.items()} if both else {}
    mixed = []
    if given and given <= NOT_LATIN and shares.get(LATIN, 0) >= MIXED_SHARE:
        mixed.append("en")
    if given and not any(HAN in scripts_of(one) for one in given) and shares.get(HAN, 0) >= MIXED_SHARE:
        mixed.append("zh")
    return mixed


def settings_for_card(settings: Any, *, besides: Iterable[str] = ()) -> dict[str, Any]:
    """Settings of a dataclass that are not at their default, the paper's: numbers, switches and one-word choices.

    Fields that are declared to have no effect are left out, and those of `besides`, which the card has elsewhere. Of
    private text it is said that there was some.
    """
    shown: dict[str, Any] = {}
    for entry in dataclasses.fields(settings):
        if entry.name in besides or entry.metadata.get("no_effect"):
            continue
        value, default = _plain(getattr(settings, entry.name, None)), _plain(entry.default)
        if entry.metadata.get("private"):
            value = "given" if getattr(settings, entry.name, None) else None
        if (value or None) != (default or None) and (not isinstance(value, str) or _CHOICE.fullmatch(value)):
            shown[entry.name] = value
    return shown


def library_versions() -> dict[str, str]:
    """Versions of what a student is made with."""
    return {name: metadata.version(name) for name in VERSIONS}


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    return value if isinstance(value, (bool, int, float, str)) else None
