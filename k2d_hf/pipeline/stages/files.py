"""What the stages of a run share: the checkpoints that they wrote, and where their finished shards lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k2d_hf.files.resuming import key_of
from k2d_hf.files.settings import deciding
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.transcription.engines import check_engine, each_workers_engine
from k2d_hf.validation.settings import ValidateSettings
from k2d_hf.version import __version__


def local_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint that a stage wrote."""
    return Checkpoint(path=path, name=str(path), origin="local")


def work_settings(settings: LabelSettings | ValidateSettings) -> dict[str, Any]:
    """The settings that the rows of a stage depend on; where the engine is spread is not among them."""
    return {**deciding(settings), "engine": each_workers_engine(settings.engine)}


def shards_of_stage(
    resume: str | Path, stage: str, model: Checkpoint, settings: LabelSettings | ValidateSettings, language: str | None
) -> str:
    """The folder of finished shards for this model and these settings; those of others stay beside it."""
    decides = {**deciding(settings, models=True), "engine": check_engine(settings.engine)}
    key = key_of(__version__, checkpoint_fingerprint(model.path), decides, language)
    return f"{resume}/{stage}-{key}"
