"""The stages from disk to disk: read the inputs, call the public function, write the outputs, say how it went.

The recipe's runner and the verbs of the command line both come here.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.checkpoints import Checkpoint, load_whisper
from k2d_hf.console import Stage
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import millions
from k2d_hf.folders import write_folder
from k2d_hf.recipe import EvaluateSettings, LabelSettings, StudentSettings, ValidateSettings

if TYPE_CHECKING:
    from datasets import Dataset

BEFORE = "student, before"  # name of the row for the student before distillation


def load_chunks(path: str | Path) -> Dataset:
    """A data set of chunks written by `k2d label` or `k2d validate`.

    Raises:
        K2DError: if there is none.
    """
    from datasets import load_from_disk

    try:
        return load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise K2DError(f"{path}: no data set of chunks: {str(error).splitlines()[0]}; `k2d label` writes one") from None


def label(
    recordings: Dataset,
    teacher: Checkpoint,
    settings: LabelSettings,
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    journal: Path,
    skipped: Path,
) -> str:
    """Recordings to chunks in `output`; what was skipped or left out goes to the file `skipped`."""
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings

    report = LabellingReport()
    started = time.perf_counter()
    stage.start(len(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            str(teacher.path),
            language=language,
            journal=journal,
            report=report,
            on_progress=stage.advance,
            **vars(settings),
        )
    finally:
        _write_lines(skipped, [*report.skipped, *report.left_out])
    write_folder(output, lambda folder: chunks.save_to_disk(str(folder)), replace=True)
    result = f"{minutes(report.seconds)} -> {len(chunks)} chunks ({time.perf_counter() - started:.0f} s"
    result += f", {len(report.skipped)} skipped"
    if report.left_out:
        lost = sum(span["end"] - span["start"] for span in report.left_out)
        result += f", {len(report.left_out)} spans of {lost:.1f} s left out"
    if report.skipped or report.left_out:
        result += f", see {skipped}"
    return result + ")"


def validate(
    chunks: Dataset,
    auxiliary: Checkpoint,
    settings: ValidateSettings,
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    journal: Path,
) -> str:
    """Chunks to the same chunks with distance and verdict in `output`.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.validation.auxiliary import drop_counts, validate_labels

    stage.start(len(chunks), "chunks")
    validated = validate_labels(
        chunks, str(auxiliary.path), language=language, journal=journal, on_progress=stage.advance, **vars(settings)
    )
    write_folder(output, lambda folder: validated.save_to_disk(str(folder)), replace=True)
    reasons = drop_counts(validated).most_common()
    dropped = ", ".join(f"{count} {reason}" for reason, count in reasons)
    kept = sum(validated["keep"])
    if not kept:
        raise K2DError(
            f"every one of {len(validated)} chunks was dropped ({dropped}); raise validate.threshold, "
            f"or look at the column distance in {output}"
        )
    hours = sum(d for d, keep in zip(validated["duration"], validated["keep"], strict=True) if keep)
    result = f"kept {kept} ({100 * kept / len(validated):.0f}%, {minutes(hours)})"
    return result + (f"  dropped: {dropped}" if dropped else "")


def student(teacher: Checkpoint, settings: StudentSettings, *, language: str | None, output: Path) -> str:
    """The untrained student, with its processor, in `output`."""
    from transformers import WhisperProcessor

    from k2d_hf.distillation.student import create_student, layer_indices

    model = load_whisper(teacher.path)
    created = create_student(model, settings.decoder_layers, settings.encoder_layers, language=language)
    created.config.name_or_path = teacher.name
    processor = WhisperProcessor.from_pretrained(teacher.path)

    def write(folder: Path) -> None:
        created.save_pretrained(folder)
        processor.save_pretrained(folder)

    write_folder(output, write, replace=True)
    total = model.config.decoder_layers
    kept = ",".join(map(str, layer_indices(settings.decoder_layers, total)))
    sizes = f"{millions(model.num_parameters())} -> {millions(created.num_parameters())} parameters"
    return f"decoder layers {kept} of {total}; {sizes}"


def distil(
    chunks: Dataset,
    student_dir: Path,
    teacher: Checkpoint,
    auxiliary: Checkpoint | None,
    settings: Mapping[str, Any],
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    checkpoints: Path,
) -> str:
    """Train the student of `student_dir` on the kept chunks; the result is a complete checkpoint in `output`.

    Training checkpoints go to `checkpoints`; where some are left of an interrupted run, it goes on from the last.
    """
    from transformers import WhisperProcessor
    from transformers.trainer_utils import get_last_checkpoint

    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.progress import TrainingProgress
    from k2d_hf.distillation.trainer import K2DTrainer

    given = {name: value for name, value in settings.items() if name != "peft"}
    defaults = {
        "report_to": "none",
        "save_total_limit": 1,
        "logging_steps": 10,
        "disable_tqdm": True,
        "encoder_states_dir": str(output.with_name("encoder-states")),
    }
    arguments = K2DTrainingArguments(output_dir=str(checkpoints), **{**defaults, "language": language, **given})
    progress = TrainingProgress(stage)
    processor = WhisperProcessor.from_pretrained(student_dir)
    trainer = K2DTrainer(
        load_whisper(student_dir),
        arguments,
        teacher_model=str(teacher.path),
        auxiliary_model=str(auxiliary.path) if auxiliary is not None and arguments.auxiliary_weight else None,
        train_dataset=chunks,
        processing_class=processor,
        peft_config=_peft_config(settings.get("peft")),
        callbacks=[progress],
    )
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trained: Any = trainer.model
    if settings.get("peft"):
        trained = trained.merge_and_unload()

    def write(folder: Path) -> None:
        trained.save_pretrained(folder)
        processor.save_pretrained(folder)
        _write_json(folder / "training_log.json", trainer.state.log_history)

    write_folder(output, write, replace=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    shared = "encoder shared with the teacher" if trainer.shares_encoder else "encoder of its own"
    return f"{progress.summary()}  {shared}"


def _peft_config(settings: Mapping[str, Any] | None) -> Any:
    if not settings:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **settings})


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

    stage.start(len(recordings) * len(models), "recordings")
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
        _write_json(output, {name.replace(", ", "_"): row for name, row in figures.items()})
        _write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures


def local_checkpoint(path: str | Path, name: str | None = None) -> Checkpoint:
    """A checkpoint that a stage wrote."""
    return Checkpoint(path=Path(path), name=name or str(path), origin="local")


def minutes(seconds: float) -> str:
    """Seconds as `16.4 min`, or as hours where there are many."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
