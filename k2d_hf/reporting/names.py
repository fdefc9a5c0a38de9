"""Names of recordings and models on a page: unique, and no more of the user's folders than that takes."""

from __future__ import annotations

from collections.abc import Sequence

from k2d_hf.data.recording_rows import span_fields
from k2d_hf.terminal.console import minutes


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path without the folders that all of them share."""
    split = {path: path.replace("\\", "/").split("/") for path in paths}
    shared = 0
    for parts in zip(*(parts[:-1] for parts in split.values()), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return {path: "/".join(parts[shared:]) for path, parts in split.items()}


def clock(seconds: float) -> str:
    """A moment of a recording: `1:05`, `1:02:09`."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def span_label(start: float, duration: float | None) -> str:
    """What follows the name of a recording that is a span of its file: `, 0:08 to 0:20`; nothing of a complete file."""
    if not span_fields(start, duration):
        return ""
    return f", {clock(start)} to " + ("the end" if duration is None else clock(start + duration))


def length(seconds: float) -> str:
    """How long something took or lasts: `49 s`, `5.2 min`, `3.1 h`."""
    if 0 < seconds < 0.5:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return minutes(seconds)
