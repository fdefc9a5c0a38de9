"""From the verdicts on the segments of a chunk to rows of the data contract: cut apart, or whole with a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from k2d_hf.data.chunk_audio import chunk_name, ends_with_its_sound
from k2d_hf.data.chunk_schema import MORE_AUXILIARIES, SEGMENT_VERDICTS
from k2d_hf.data.chunking import join_texts
from k2d_hf.errors import K2DError
from k2d_hf.validation.distance import compare_labels
from k2d_hf.validation.judges import is_judged, labelled_measures, measures
from k2d_hf.validation.segments import (
    JudgedSegment,
    judge_segments,
    main_reason,
    mean_distance,
    runs_of,
    trusted_end,
    usable_segments,
)
from k2d_hf.validation.settings import ValidateSettings


class TextBefore:
    """The text before a chunk as far as it is trusted: a prompt is never what validation distrusts.

    Chunks of a recording come in order. Where the chunk before one did not, nothing is known of its text.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, str, str | None] | None = None  # recording, text, and the trusted end of it

    def of(self, chunk: Mapping[str, Any]) -> str | None:
        """What of the `previous_text` of a chunk is trusted."""
        known = self._last is not None and self._last[:2] == (chunk["recording"], chunk.get("previous_text"))
        return self._last[2] if known and self._last is not None else None

    def add(self, chunk: Mapping[str, Any], trusted: str | None) -> None:
        """Remember a chunk for the one after it; a silent window stands between two that follow each other."""
        if chunk["text"]:
            self._last = chunk["recording"], chunk["text"], trusted


def rows_of_segments(
    chunk: Mapping[str, Any], whole: Mapping[str, Any], settings: ValidateSettings, before: TextBefore
) -> list[dict[str, Any]]:
    """The rows of a chunk that is judged by segments; `whole` is the verdict on the chunk as one.

    Without usable times, or a transcript of each auxiliary, it stays one unit. Its rows are then one, as are those of
    `keep: mask`; of `keep: cut` they are its trusted and distrusted parts, in order, which together are the chunk.

    Raises:
        K2DError: for a chunk to be cut that carries its own sound.
    """
    segments, further = usable_segments(chunk), [one["text"] for one in whole.get(MORE_AUXILIARIES) or ()]
    transcript = None if None in further else whole["auxiliary_text"]
    # dropped by judges, alone or together, and not by its distance, so at whatever threshold of that
    judged = is_judged(whole["drop_reason"]) or not whole["keep"] and whole["distance"] <= settings.threshold
    chunk_distance = None if transcript is None or judged else whole["distance"]
    row = {**chunk, **whole, "chunk_distance": chunk_distance, "previous_text": before.of(chunk)}
    if transcript is None or not segments:
        before.add(chunk, chunk["text"] if whole["keep"] else None)
        return [{**row, SEGMENT_VERDICTS: None}]
    judged = judge_segments(segments, transcript, settings, labelled_measures(chunk), further)
    before.add(chunk, trusted_end(judged))
    if settings.keep == "mask":
        return [{**row, **_with_rates(row, judged), **_masked(judged, settings)}]
    return _cut(row, judged, settings)


def _masked(judged: Sequence[JudgedSegment], settings: ValidateSettings) -> dict[str, Any]:
    """The verdict on a chunk that stays whole: it is kept if any segment is, and its distance is theirs."""
    trusted = [one for one in judged if one.reason is None]
    return {
        **_verdict(trusted or judged, settings),
        SEGMENT_VERDICTS: [one.verdict() for one in judged],
        "keep": bool(trusted),
        "drop_reason": main_reason(judged),
    }


def _verdict(judged: Sequence[JudgedSegment], settings: ValidateSettings) -> dict[str, Any]:
    """Distance of some segments, and what the judges measure of them."""
    segments = [one.segment for one in judged]
    duration = max(one["end"] for one in segments) - segments[0]["start"]
    text = join_texts(one["text"] for one in segments)
    measured = measures({"text": text, "duration": duration, "segments": segments}, vars(settings))
    return {**measured, "distance": mean_distance(judged)}


def _with_rates(row: Mapping[str, Any], judged: Sequence[JudgedSegment]) -> dict[str, Any]:
    """The column of more auxiliaries, if there are some, with their error rates of each segment."""
    more = row.get(MORE_AUXILIARIES)
    if not more:
        return {}
    rates = [
        [{"mer": one.further[at][0].mer, "per": one.further[at][0].per} for one in judged] for at in range(len(more))
    ]
    return {MORE_AUXILIARIES: [{**one, "segments": of_one} for one, of_one in zip(more, rates, strict=True)]}


def _cut(row: Mapping[str, Any], judged: Sequence[JudgedSegment], settings: ValidateSettings) -> list[dict[str, Any]]:
    runs = runs_of(judged)
    if len(runs) > 1 and ends_with_its_sound(row):
        raise K2DError(
            f"keep cut: {chunk_name(row)} carries its own sound, of which no part can be named: give the chunks with "
            "the paths of their recordings, or set keep to mask"
        )
    return [_part(row, run, first=run is runs[0], alone=len(runs) == 1, settings=settings) for run in runs]


def _part(
    row: Mapping[str, Any], run: Sequence[JudgedSegment], *, first: bool, alone: bool, settings: ValidateSettings
) -> dict[str, Any]:
    """The row of a run of segments: a span of audio without the rest, with times from its own start.

    What follows is in the window of 30 s that begins with it, so that nothing is cut off at the window's end, and
    `next_start` is null. Before it, but for the first, are distrusted segments, so there is no prompt.
    """
    verdict = {
        **_verdict(run, settings),
        SEGMENT_VERDICTS: [one.verdict() for one in run],
        "keep": run[0].reason is None,
        "drop_reason": run[0].reason,
    }
    verdict |= _with_rates(row, run)
    if alone:
        return {**row, **verdict}
    begin = run[0].segment["start"]
    segments = [_moved(one.segment, -begin) for one in run]
    text = join_texts(one["text"] for one in segments)
    transcript = _heard(row["auxiliary_text"], [one.span for one in run])
    compare = partial(
        compare_labels, text, metric=settings.metric, normalise_by=settings.normalise_by, **settings.phones
    )
    compared = asdict(compare(transcript))
    for at, other in enumerate(verdict.get(MORE_AUXILIARIES, ())):
        theirs = _heard(other["text"], [one.further[at][1] for one in run])
        rates = compare(theirs)
        other |= {"text": theirs, "mer": rates.mer, "per": rates.per, "distance": mean_distance(run, at)}
    return {
        **row,
        "start": _seconds(row["start"] + begin),
        "duration": max(one["end"] for one in segments),
        "segments": segments,
        "text": text,
        "previous_text": row["previous_text"] if first else None,
        "next_start": None,
        "auxiliary_text": transcript,
        "mer": compared["mer"],
        "per": compared["per"],
        "teacher_loops": any(one.comparison.teacher_loops for one in run),
        **verdict,
    }


def _heard(transcript: str, spans: Sequence[tuple[int, int]]) -> str:
    """What a transcript has of a run of segments."""
    heard = [span for span in spans if span[0] < span[1]]
    return transcript[heard[0][0] : heard[-1][1]].strip() if heard else ""


def _moved(segment: Mapping[str, Any], by: float) -> dict[str, Any]:
    return {**segment, "start": _seconds(segment["start"] + by), "end": _seconds(segment["end"] + by)}


def _seconds(time: float) -> float:
    """A time without float noise, exact to the sample."""
    return round(time, 7)
