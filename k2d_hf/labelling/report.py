"""What labelling took in, left out and passed over: counted in seconds, and named (K2D, stage 1)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from k2d_hf.data.chunking import LEAST_LISTED, PASSED_OVER, PASSED_OVER_INSIDE


@dataclass
class LabellingReport:
    """What labelling took in and left out; filled while it runs.

    Seconds of segments in equal those of segments out plus those of the spans left out. Seconds of audio read equal
    those in chunks plus those that are listed (whole recordings in `skipped`, spans in `left_out` and `passed_over`)
    plus those of spans too short to be listed.
    """

    recordings: int = 0
    seconds: float = 0.0  # of audio read
    seconds_in_chunks: float = 0.0
    seconds_listed: float = 0.0  # in no chunk, and named in one of the three lists
    seconds_unlisted: float = 0.0  # in no chunk, in spans of less than 2 s
    silences: int = 0  # rows of `label.silence`, which no figure of chunks counts
    segment_seconds_in: float = 0.0  # as the teacher wrote them
    segment_seconds_out: float = 0.0  # in chunks
    skipped: list[dict[str, Any]] = field(default_factory=list)  # recording, (start, duration), reason, detail
    left_out: list[dict[str, Any]] = field(default_factory=list)  # recording, start, end (s), reason
    passed_over: list[dict[str, Any]] = field(default_factory=list)  # likewise, where the teacher wrote nothing
    several_tracks: list[str] = field(default_factory=list)  # recordings of which none of their tracks was named
    out_of_phase: list[str] = field(default_factory=list)  # recordings of whose channels the mean is next to nothing

    @property
    def seconds_passed_over(self) -> float:
        """Seconds in no chunk about which the teacher wrote nothing, in spans that are listed."""
        return self._seconds_listed_as(PASSED_OVER)

    @property
    def seconds_without_text(self) -> float:
        """Likewise seconds between two segments of a chunk: of pauses, or of speech that the chunk's label lacks."""
        return self._seconds_listed_as(PASSED_OVER_INSIDE)

    def _seconds_listed_as(self, reason: str) -> float:
        return math.fsum(span["end"] - span["start"] for span in self.passed_over if span["reason"] == reason)

    def figures(self) -> dict[str, Any]:
        """The counts without the lists, ready for JSON."""
        lists = ("skipped", "left_out", "passed_over")
        counts = {name: value for name, value in vars(self).items() if name not in lists}
        counts |= {name: len(counts[name]) for name in ("several_tracks", "out_of_phase")}
        derived = ("seconds_passed_over", "seconds_without_text")
        return {**counts, **{name: getattr(self, name) for name in derived}, "least_listed": LEAST_LISTED}

    def skip_counts(self) -> Counter[str]:
        """Recordings skipped, by reason."""
        return Counter(entry["reason"] for entry in self.skipped)

    def add(self, other: LabellingReport) -> None:
        """Count what another report counts, too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
