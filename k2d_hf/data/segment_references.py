"""How wrong each segment of some chunks is: its text against what was said there, whatever unit validation judges.

References have sentences of their own, and a teacher's segments end elsewhere. So both texts of a recording are aligned
by phonemes, as validation aligns two transcripts, and a segment's reference is what the alignment gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.data.references import chunk_reference, label_error_rate
from k2d_hf.scoring.alignment import counterparts


def units_of(chunk: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Text and seconds of each segment of a chunk; of one without any, of the whole of it."""
    segments = chunk.get("segments") or [{"start": 0.0, "end": chunk["duration"], "text": chunk["text"]}]
    return [(segment["text"], segment["end"] - segment["start"]) for segment in segments]


def true_rates(chunks: Sequence[Mapping[str, Any]], references: Sequence[Segment]) -> list[list[float]]:
    """True MER of each unit of some chunks of one recording (`units_of`), chunk by chunk.

    Args:
        chunks: with `start` and `duration` (s), `segments` and `text`, in any order; of what lies in none of them
            nothing is asked. A chunk without text, which is silence, has for reference what was said in it.
        references: the spoken segments of the recording.
    """
    spoken = [chunk for chunk in sorted(chunks, key=lambda chunk: chunk["start"]) if chunk["text"]]
    texts = [text for chunk in spoken for text, _ in units_of(chunk)]
    said = join_texts(segment.text for segment in references if _is_within(segment, spoken))
    parts = iter(counterparts(texts, said))
    found = {
        (chunk["start"], chunk["duration"]): [
            label_error_rate(said[slice(*next(parts))], text) for text, _ in units_of(chunk)
        ]
        for chunk in spoken
    }
    return [
        found[chunk["start"], chunk["duration"]]
        if chunk["text"]
        else [label_error_rate(chunk_reference(references, chunk["start"], chunk["duration"]), "")]
        for chunk in chunks
    ]


def _is_within(segment: Segment, chunks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether more than half of what was said lies in some of the chunks, which share no time."""
    ends = ((chunk["start"], chunk["start"] + chunk["duration"]) for chunk in chunks)
    shared = sum(max(0.0, min(segment.end, end) - max(segment.start, start)) for start, end in ends)
    return shared > segment.duration / 2
