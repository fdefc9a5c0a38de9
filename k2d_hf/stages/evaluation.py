"""Evaluation on disk: models and recordings to figures and transcripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.console import Stage
from k2d_hf.recipe import EvaluateSettings
from k2d_hf.stages.files import write_json, write_lines

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
) -> dict[str, dict[str, Any]]:
    """Evaluate models one after the other; figures go to `output`, transcripts to a file beside it.

    Returns:
        Figures by name, in the order given.
    """
    from k2d_hf.evaluation.evaluate import evaluate_model

    stage.start(len(recordings) * len(models) * settings.speed_runs, "recordings")
    options = {name: value for name, value in vars(settings).items() if name != "before"}
    figures: dict[str, dict[str, Any]] = {}
    transcripts: list[dict[str, Any]] = []
    for name, checkpoint in models.items():
        result = evaluate_model(
            str(checkpoint.path),
            recordings,
            name=checkpoint.name,
            language=language,
            on_progress=lambda count, name=name: stage.advance(count, name),  # type: ignore[misc]
            **options,
        )
        figures[name] = result.figures()
        transcripts += [{"model": name, **transcript} for transcript in result.transcripts]
    if output is not None:
        write_json(output, figures)
        write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures
