"""The share of the chunks that validation keeps: what a very low one may mean, and what to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# Share of the chunks that validation keeps at alpha 0.4 (arXiv 2407.10603, Table 2).
PAPER_KEPT = {"full": 1.0, "trivial": 0.97, "mer": 0.55, "per": 0.61, "composite": 0.74}
# Half of what the paper's own metric keeps, and far below what its strictest does: such a share says more about the
# auxiliary than about the labels.
LOW_KEPT_SHARE = PAPER_KEPT["composite"] / 2


@dataclass
class ValidationReport:
    """What validation kept and dropped; filled when it ends."""

    chunks: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # chunks, by reason

    @property
    def kept(self) -> int:
        """Chunks that no reason drops."""
        return self.chunks - self.dropped.total()

    def warning(self) -> str | None:
        """One line on a very low share of kept chunks and what it may mean; None where it is none."""
        if self.kept >= LOW_KEPT_SHARE * self.chunks:
            return None
        reasons = self.dropped.most_common()
        advice = "the reasons are in the column drop_reason"
        if reasons[0][0].startswith("distance"):
            advice = (
                "the auxiliary may not understand this speech: read what it wrote (column auxiliary_text), look at "
                "`k2d calibrate`, or take another auxiliary"
            )
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        return (
            f"validation kept only {self.kept} of {self.chunks} chunks ({100 * self.kept / self.chunks:.0f}%, where "
            f"the paper keeps {100 * PAPER_KEPT['composite']:.0f}%), dropped are {counts}; {advice}"
        )
