"""The share of the chunks that validation keeps: what a very low one may mean, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

# Share of the chunks that validation keeps at alpha 0.4 (arXiv 2407.10603, Table 2).
PAPER_KEPT = {"full": 1.0, "trivial": 0.97, "mer": 0.55, "per": 0.61, "composite": 0.74}
# Half of what the paper's own metric keeps, and far below what its strictest does: such a share says more about the
# auxiliary than about the labels.
LOW_KEPT_SHARE = PAPER_KEPT["composite"] / 2


def low_share_warning(chunks: int, dropped: Mapping[str, int]) -> str | None:
    """One line on a very low share of kept chunks; None where it is none.

    Args:
        chunks: how many were validated.
        dropped: how many of them were dropped, by reason.
    """
    kept = chunks - sum(dropped.values())
    if not chunks or kept >= LOW_KEPT_SHARE * chunks:
        return None
    reasons = sorted(dropped.items(), key=lambda item: -item[1])
    advice = "their reasons are in the column drop_reason"
    if reasons[0][0].startswith("distance"):
        advice = (
            "the auxiliary may not understand this speech: read what it wrote (column auxiliary_text), look at "
            "`k2d calibrate`, or take another auxiliary"
        )
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
    return (
        f"validation kept only {kept} of {chunks} chunks ({100 * kept / chunks:.0f}%, where the paper keeps "
        f"{100 * PAPER_KEPT['composite']:.0f}%), dropped are {counts}; {advice}"
    )
