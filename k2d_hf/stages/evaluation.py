"""Evaluation on disk: models and recordings to figures and transcripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint
from k2d_hf.console import Stage
from k2d_hf.recipe import EvaluateSettings
from k2d_hf.reporting.names import counted
from k2d_hf.resuming import files_key, key_of
from k2d_hf.stages.files import write_json, write_lines
from k2d_hf.storage import write_whole
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset


def evaluate(
    models: Mapping[str, Checkpoint],
    recordings: Dataset,
    settings: EvaluateSettings,
    stage: Stage,
    *,
    language: str | None,
    output: Path | None,
    resume: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate models one after the other; figures go to `output`, transcripts to a file beside it.

    Args:
        models: by what they are in the method: teacher, student, ...
        recordings: with references.
        settings: how they are decoded.
        stage: shows the progress.
        language: of all recordings.
        output: file of the figures.
        resume: folder that keeps what each model gave, so that the same weights on the same recordings, decoded alike,
            are not measured again: after a crash, or where only the student is new. Their speed is that of then.

    Returns:
        Figures by name, in the order given.
    """
    from k2d_hf.evaluation.evaluate import evaluate_model

    stage.start(len(models) * settings.passes(len(recordings)), "transcripts")
    options = {name: value for name, value in vars(settings).items() if name != "before"}
    figures: dict[str, dict[str, Any]] = {}
    transcripts: list[dict[str, Any]] = []
    keys: list[str] = []
    heard = [list(recordings), files_key(recordings["recording"])]
    for name, checkpoint in models.items():
        key = key_of(__version__, checkpoint_fingerprint(checkpoint.path), language, options, heard)
        keys.append(key)
        measured = _measured(resume, key)
        if measured is None:
            result = evaluate_model(
                str(checkpoint.path),
                recordings,
                name=checkpoint.name,
                language=language,
                on_progress=lambda count, name=name: stage.advance(count, name),  # type: ignore[misc]
                **options,
            )
            measured = {"figures": result.figures(), "transcripts": result.transcripts}
            if resume is not None:
                write_whole(str(_place(resume, key)), json.dumps(measured).encode())
        else:
            stage.advance(settings.passes(len(recordings)), name)
        figures[name] = {**measured["figures"], "model": checkpoint.name}
        transcripts += [{"model": name, **transcript} for transcript in measured["transcripts"]]
    if resume is not None:
        for left in set(resume.glob("evaluate-*.json")) - {_place(resume, key) for key in keys}:
            left.unlink(missing_ok=True)
    if output is not None:
        write_json(output, figures)
        write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures


def measured_over(models: int, recordings: int) -> str:
    """What the transcripts of an evaluation are of: `3 models, 1 recording`."""
    return f"{counted(models, 'model')}, {counted(recordings, 'recording')}"


def _place(resume: Path, key: str) -> Path:
    return resume / f"evaluate-{key}.json"


def _measured(resume: Path | None, key: str) -> dict[str, Any] | None:
    """What was measured of these weights before; None where that is not there, or cannot be read."""
    if resume is None:
        return None
    try:
        measured = json.loads(_place(resume, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return measured if isinstance(measured, dict) and {"figures", "transcripts"} <= measured.keys() else None
