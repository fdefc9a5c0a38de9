"""Which chunks are trained on: those that validation kept and whose label fits the decoder; the rest is counted."""

from __future__ import annotations

import logging
from typing import Any

from k2d_hf.distillation.collator import K2DDataCollator
from k2d_hf.errors import K2DError

logger = logging.getLogger(__name__)

NAMED = 3  # chunks named in the warning about labels that are too long


def training_rows(rows: Any, collator: K2DDataCollator, *, what: str) -> Any:
    """Leave out chunks that were dropped by validation and those whose label is too long, with a warning that counts.

    Args:
        rows: a `datasets.Dataset` of chunks, or a dictionary of them; anything else is returned as it is.
        collator: whose labels are measured.
        what: name of the rows, for messages.

    Raises:
        K2DError: if nothing is left.
    """
    from datasets import Dataset

    if isinstance(rows, dict):
        return {name: training_rows(part, collator, what=f"{what} {name}") for name, part in rows.items()}
    if not isinstance(rows, Dataset) or "text" not in rows.column_names:
        return rows
    kept = list(range(len(rows)))
    if "keep" in rows.column_names:
        kept = [index for index, keep in enumerate(rows["keep"]) if keep]
    dropped = len(rows) - len(kept)
    texts = rows.select_columns([c for c in ("text", "segments", "language") if c in rows.column_names])
    fitting = [index for index in kept if collator.fits(texts[index])]
    too_long = sorted(set(kept) - set(fitting))
    if too_long:
        names = ", ".join(f"{rows[i]['recording']} at {rows[i]['start']:.1f} s" for i in too_long[:NAMED])
        more = f" and {len(too_long) - NAMED} more" if len(too_long) > NAMED else ""
        logger.warning(
            "%s: left out %d chunks whose label exceeds %d tokens: %s%s",
            what,
            len(too_long),
            collator.max_tokens,
            names,
            more,
        )
    if dropped:
        logger.info("%s: left out %d chunks that validation dropped", what, dropped)
    if not fitting:
        raise K2DError(
            f"nothing to train on: of {len(rows)} chunks ({what}) {dropped} were dropped by validation and "
            f"{len(too_long)} have too long a label; raise validate.threshold, or look at the distances"
        )
    return rows if len(fitting) == len(rows) else rows.select(fitting)


def language_of(rows: Any) -> str | None:
    """The language of the chunks, if they are all in one."""
    if not hasattr(rows, "unique") or "language" not in rows.column_names:
        return None
    languages = rows.unique("language")
    return languages[0] if len(languages) == 1 else None
