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
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint
from k2d_hf.console import Stage, minutes
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import millions
from k2d_hf.folders import write_folder
from k2d_hf.labelling.transcribers import check_engine
from k2d_hf.processes import is_main_process
from k2d_hf.recipe import EvaluateSettings, LabelSettings, StudentSettings, ValidateSettings
from k2d_hf.resuming import folder_key, key_of, unfinished
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

# Settings that decide what becomes of a transcript, not the transcript: when they change, no model runs again.
NOT_HEARD = ("max_duration", "metric", "threshold", "normalise_by", "batch_size", "device")


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
    resume: Path,
    skipped: Path,
) -> str:
    """Recordings to chunks in `output`; what was skipped or left out goes to the file `skipped`.

    The teacher's transcripts are kept in the folder `resume`, for a run that is interrupted.

    Raises:
        K2DError: if every recording was skipped.
    """
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings

    report = LabellingReport()
    started = time.perf_counter()
    stage.start(len(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            str(teacher.path),
            language=language,
            journal=_journal(resume, "label", teacher, settings, language),
            report=report,
            on_progress=stage.advance,
            **vars(settings),
        )
    except K2DError as error:
        raise K2DError(f"{error}; see {skipped}" if report.skipped else str(error)) from error
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
    resume: Path,
) -> str:
    """Chunks to the same chunks with distance and verdict in `output`.

    The auxiliary's transcripts are kept in the folder `resume`, for a run that is interrupted or has another verdict.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.validation.auxiliary import drop_counts, validate_labels

    stage.start(len(chunks), "chunks")
    validated = validate_labels(
        chunks,
        str(auxiliary.path),
        language=language,
        journal=_journal(resume, "validate", auxiliary, settings, language),
        on_progress=stage.advance,
        **vars(settings),
    )
    write_folder(output, lambda folder: validated.save_to_disk(str(folder)), replace=True)
    reasons = drop_counts(validated).most_common()
    dropped = ", ".join(f"{count} {reason}" for reason, count in reasons)
    kept = sum(validated["keep"])
    if not kept:
        raise K2DError(
            f"every one of {len(validated)} chunks was dropped ({dropped}); raise validate.threshold "
            f"(now {settings.threshold:g}), or look at the column distance in {output}"
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
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint,
    auxiliary: Checkpoint | None,
    settings: Mapping[str, Any],
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    resume: Path,
) -> str:
    """Train the student of `student_dir` on the chunks kept in `validated`; `output` becomes a complete checkpoint.

    Training checkpoints and encoder states go to the folder `resume`; a run that was interrupted goes on from the last.
    Of several processes (torchrun) each trains its share, and the first writes.
    """
    from transformers import PrinterCallback, WhisperProcessor
    from transformers.trainer_utils import get_last_checkpoint

    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.progress import TrainingProgress
    from k2d_hf.distillation.trainer import K2DTrainer

    chunks = load_chunks(validated)
    parties = [checkpoint_fingerprint(path) for path in (student_dir, teacher.path)]
    helps = checkpoint_fingerprint(auxiliary.path) if auxiliary is not None else None
    key = key_of(__version__, parties, helps, language, dict(settings), folder_key(validated))
    checkpoints = unfinished(resume, "distil", key)
    given = {name: value for name, value in settings.items() if name != "peft"}
    defaults = {
        "report_to": "none",
        "save_total_limit": 1,
        "logging_steps": 10,
        "logging_first_step": True,
        "disable_tqdm": True,
        "encoder_states_dir": str(resume / "encoder-states"),
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
    trainer.remove_callback(PrinterCallback)  # the bar and the log of training show what it prints
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trained: Any = trainer.model
    if settings.get("peft"):
        trained = trained.merge_and_unload()

    def write(folder: Path) -> None:
        trained.save_pretrained(folder)
        processor.save_pretrained(folder)
        _write_json(folder / "training_log.json", trainer.state.log_history)

    if is_main_process():
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
        _write_json(output, figures)
        _write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures


def local_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint that a stage wrote."""
    return Checkpoint(path=path, name=str(path), origin="local")


def _journal(
    resume: Path, stage: str, model: Checkpoint, settings: LabelSettings | ValidateSettings, language: str | None
) -> Path:
    """The journal of transcripts for this model and these settings; the files are the journal's own keys."""
    decides = {name: value for name, value in vars(settings).items() if name not in NOT_HEARD}
    key = key_of(__version__, checkpoint_fingerprint(model.path), check_engine(settings.engine), decides, language)
    return unfinished(resume, stage, key)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a line; without rows there is no file."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
