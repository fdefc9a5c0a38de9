"""The recordings of an evaluation: their names, whether they will do, and long ones out of utterances (section 4).

Public test sets are cut into utterances of seconds; a student made for lectures is measured on what they were cut from.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, read_audio, span_within
from k2d_hf.data.chunking import join_texts
from k2d_hf.data.recording_rows import part_fields, selection_in, span_of
from k2d_hf.data.recordings import COLUMNS, advice_on_references, load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.files.cache import JOINED, keep_in_cache, name_of_kept
from k2d_hf.files.content_keys import content_key
from k2d_hf.formatting import short_name
from k2d_hf.models.languages import language_of_row
from k2d_hf.scoring.text import mixed_tokens

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_LISTED = 20  # groups that a warning names


def load_long_form(source: Any, *, join_by: str | None = None, join_pause: float = 0.0, **options: Any) -> Dataset:
    """Recordings to evaluate on: those of `load_recordings`, with `options` for it.

    With the column `join_by`, such as `session_id`, utterances that are alike in it become one recording, with
    `join_pause` seconds of silence in between; errors are those of `load_recordings` and `join_utterances`.
    """
    recordings = load_recordings(source, group_by=join_by, **options)
    return recordings if join_by is None else join_utterances(recordings, pause=join_pause)


def join_utterances(utterances: Dataset, *, pause: float = 0.0) -> Dataset:
    """One recording for each value of the column `group`, in the order in which the values come, and called by it.

    Audio is joined as it comes, with `pause` seconds of silence in between, and kept in the cache as 16-bit FLAC at
    16 kHz; references are joined likewise. The language is that of all utterances, or null where they differ.
    Utterances without a reference are left out, sound and all: their errors could not be counted. A group of
    which an utterance cannot be read is left out entirely. Both are counted in a warning, the groups by name.

    Args:
        utterances: columns `recording`, `reference`, `language` and `group`, and of spans `start` and `duration` (s).
        pause: s.

    Raises:
        K2DError: if no utterance has a reference, or of every group one cannot be read.
    """
    from datasets import Dataset

    groups: dict[str, list[dict[str, Any]]] = {}
    for row in utterances:
        if mixed_tokens(row["reference"] or ""):
            groups.setdefault(row["group"], []).append(row)
    if not groups:
        raise K2DError(
            f"none of {len(utterances)} utterances has a reference, so there is nothing to measure; "
            f"{advice_on_references(utterances)}"
        )
    count = sum(map(len, groups.values()))
    if count < len(utterances):
        logger.warning("left out %d of %d utterances: no reference", len(utterances) - count, len(utterances))
    joined: list[dict[str, Any]] = []
    lost: list[str] = []
    for group, rows in groups.items():
        try:
            joined.append(_joined(group, rows, pause))
        except AudioError as error:
            lost.append(f"{short_name(group)} (utterance {error})")
    if lost:
        listed = f"{len(lost)} of {len(groups)}: {'; '.join(lost[:_LISTED])}{'; ...' if lost[_LISTED:] else ''}"
        if not joined:
            raise K2DError(f"no recording can be joined, {listed}; to join utterances every one is needed")
        logger.warning("left out recordings that cannot be joined, %s", listed)
    return Dataset.from_list(joined, features=utterances.select_columns(list(COLUMNS)).features)


def _joined(group: str, rows: Sequence[dict[str, Any]], pause: float) -> dict[str, Any]:
    languages = {language_of_row(row) or row["language"] for row in rows}
    spans = [
        [index, *span_of(row), *filter(None, [selection_in(row).key])]
        for index, row in enumerate(rows)
        if part_fields(row)
    ]
    identity = json.dumps([[content_key(row["recording"]) for row in rows], pause, *spans]).encode()
    kept = keep_in_cache(lambda: _flac(rows, pause), JOINED, ".flac", identity=identity, name=group)
    return {
        "recording": str(kept),
        "reference": join_texts(row["reference"] for row in rows),
        "language": languages.pop() if len(languages) == 1 else None,
    }


def _flac(rows: Sequence[Mapping[str, Any]], pause: float) -> bytes:
    import soundfile

    silence = np.zeros(round(pause * SAMPLE_RATE), dtype=np.float32)
    parts: list[np.ndarray] = []
    for row in rows:
        parts += [read_audio(row["recording"], *span_of(row), within=True, selection=selection_in(row)), silence]
    file = io.BytesIO()
    soundfile.write(file, np.clip(np.concatenate(parts[:-1]), -1.0, 1.0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def recording_names(paths: Sequence[str]) -> list[str]:
    """What each row is called in transcripts, never by a hash of the cache.

    A file of one's own is called by its path. Audio out of a data set is called by the file name that this has for it,
    else by its row, such as `row 3`, counted from 0; a joined recording by what its utterances have in common. Where
    different sounds share a name, the row is added.
    """
    names = []
    for row, path in enumerate(paths):
        kept = name_of_kept(path)
        names.append(path if kept is None else kept or f"row {row}")
    sounds: dict[str, set[str]] = {}
    for name, path in zip(names, paths, strict=True):
        sounds.setdefault(name, set()).add(path)
    return [name if len(sounds[name]) == 1 else f"{name} (row {row})" for row, name in enumerate(names)]


def check_measurable(recordings: Any) -> None:
    """Raise K2DError where no recording has a reference and readable audio, by its header; the first one is enough."""
    count, fault = 0, None
    for row in recordings:
        count += 1
        if mixed_tokens(row.get("reference") or "") and row.get("recording"):
            reason = _audio_fault(row)
            if reason is None:
                return
            fault = fault or reason
    raise nothing_to_measure(count, recordings, fault)


def nothing_to_measure(count: int, recordings: Any, fault: str | None = None) -> K2DError:
    """The error for `count` recordings of which none will do; `fault` is what is wrong with the first one's audio."""
    needs = f"none of {count} recordings can be evaluated: each needs readable audio and a reference"
    return K2DError(f"{needs}; {fault or advice_on_references(recordings)}")


def _audio_fault(row: Mapping[str, Any]) -> str | None:
    try:
        span_within(row["recording"], *span_of(row), audio_duration(row["recording"], selection_in(row)))
    except AudioError as error:
        return str(error)
    return None
