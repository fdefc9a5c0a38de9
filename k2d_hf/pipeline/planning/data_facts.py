"""How much speech there is, from the headers of its files: nothing is decoded, fetched or unpacked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.media import AUDIO_EXTENSIONS
from k2d_hf.audio.reader import AudioError, audio_duration, span_within
from k2d_hf.data.audio_folders import has_audio
from k2d_hf.data.labelled import load_source
from k2d_hf.data.manifests import CSV_MANIFESTS, JSON_MANIFESTS
from k2d_hf.data.recording_rows import selection_in, span_fields, span_of
from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.references import references_of
from k2d_hf.data.settings import DataSettings
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.long_form import check_measurable
from k2d_hf.files.storage import is_address
from k2d_hf.pipeline.recipe import Recipe, key_of_set

if TYPE_CHECKING:
    from datasets import Dataset

MOST_HEADERS = 1000  # headers that are read; of more files, evenly spaced ones stand for the rest


@dataclass(frozen=True)
class DataFacts:
    """What is known of a source; None where it is not here, or would have to be unpacked first."""

    source: str
    recordings: int | None = None
    seconds: float | None = None
    note: str = ""


def inspect_data(data: DataSettings) -> DataFacts:
    """Recordings and seconds of a source, from headers; K2DError for a manifest that is broken."""
    source, join_by = data.source, getattr(data, "join_by", None)
    if is_address(source):
        return DataFacts(source, note="far away, not looked at")
    if not os.path.exists(source):
        may_be_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
        return DataFacts(source, note="on the Hub, not looked at" if may_be_hub_id else "not here")
    if not _is_listed(source):
        return DataFacts(source, note="a data set, not unpacked for a plan")
    rows = _listed(data, group_by=join_by)
    step = -(-len(rows) // MOST_HEADERS)
    sampled = range(0, len(rows), step)
    seconds, unreadable = 0.0, 0
    for row in rows.select(sampled):
        try:
            seconds += _seconds_of(row)
        except AudioError:
            unreadable += 1
    notes = [f"by {len(sampled)} of {len(rows)} headers"] if step > 1 else []
    notes += [f"{unreadable} cannot be read"] if unreadable else []
    count = len(set(rows["group"])) if join_by else len(rows)
    return DataFacts(source, count, seconds * len(rows) / len(sampled), ", ".join(notes))


def _listed(data: DataSettings, *, group_by: str | None = None) -> Dataset:
    return load_recordings(
        data.source,
        audio_column=data.audio_column,
        reference_column=data.reference_column,
        group_by=group_by,
        track=data.track,
        channel=data.channel,
    )


def _seconds_of(row: Mapping[str, Any]) -> float:
    """Seconds of a recording, or of the span of it that the row is; AudioError if there is no such thing."""
    start, duration = span_of(row)
    seconds = audio_duration(row["recording"], selection_in(row))
    return seconds if not span_fields(start, duration) else span_within(row["recording"], start, duration, seconds)


def check_references(recipe: Recipe) -> None:
    """Look for references where the recipe has them, as far as their files are here and can be listed.

    Raises:
        K2DError: if no recording of a test set has one or can be read, or none of `references` is of a recording.
    """
    for name, data in recipe.evaluation_sets.items():
        if os.path.exists(data.source) and _is_listed(data.source):
            with prefixed(f"{key_of_set(name)}: "):
                check_measurable(_listed(data, group_by=data.join_by))
    source = recipe.recordings.source
    here = recipe.references is not None and os.path.exists(recipe.references) and os.path.exists(source)
    if here and _is_listed(source):
        references_of(str(recipe.references), _listed(recipe.recordings)["recording"])


def count_given(recipe: Recipe) -> dict[str, int]:
    """Chunks whose text is known, by source, of those sources that are here and can be listed; K2DError for no text."""
    counts: dict[str, int] = {}
    for name, data in recipe.sources.items():
        if os.path.exists(data.source) and _is_listed(data.source):
            with prefixed(f"mix.{name}: "):
                counts[name] = len(load_source(name, data)[0])
    return counts


def _is_listed(source: str) -> bool:
    """Whether it is a manifest, an audio file or a folder of such, which can be listed without writing anything."""
    if os.path.isfile(source):
        return source.lower().endswith(AUDIO_EXTENSIONS + JSON_MANIFESTS + CSV_MANIFESTS)
    if any(os.path.exists(os.path.join(source, name)) for name in ("dataset_dict.json", "state.json")):
        return False
    try:
        return has_audio(source)
    except OSError as error:
        raise K2DError(f"recordings {source}: cannot be read ({error}); check its access") from None
