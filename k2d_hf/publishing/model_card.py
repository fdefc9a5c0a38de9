"""The student's card, rendered from what the run measured; what was not measured is not in it."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.console import minutes
from k2d_hf.evaluation.table import COLUMNS, speed_up, table_rows
from k2d_hf.recipe import Recipe
from k2d_hf.stages import load_chunks

TAGS = ("k2d", "knowledge-distillation", "code-switching", "whisper")
VERSIONS = ("k2d_hf", "transformers", "torch", "datasets")
SHOWN_LOGS = 8


@dataclass
class CardFacts:
    """What a card tells, grouped by where it comes from. No transcript and no path of the user's data is in here."""

    model_name: str
    # the recipe
    teacher: str
    base_model: str | None  # the teacher's id on the Hub, where it has one
    auxiliary: str
    languages: list[str]
    # labelling and validation
    kept_seconds: float
    labelled_seconds: float
    facts: list[tuple[str, str]] = field(default_factory=list)
    # training
    training_log: list[dict[str, str]] = field(default_factory=list)
    # evaluation
    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_card(directory: Path, recipe: Recipe, *, teacher: Checkpoint, auxiliary: Checkpoint) -> Path:
    """Write `student/README.md` of a run.

    Args:
        directory: the run, with `validated`, `student` and, where there was evaluation data, `evaluation.json`.
        recipe: what was run.
        teacher: as it was found.
        auxiliary: likewise.
    """
    path = directory / "student" / "README.md"
    render_card(gather_facts(directory, recipe, teacher=teacher, auxiliary=auxiliary)).save(path)
    return path


def gather_facts(directory: Path, recipe: Recipe, *, teacher: Checkpoint, auxiliary: Checkpoint) -> CardFacts:
    """Collect the facts of a run from its files."""
    chunks = load_chunks(directory / "validated").select_columns(["duration", "keep", "language", "drop_reason"])
    kept = chunks.filter(lambda keep: keep, input_columns="keep")
    evaluation_file = directory / "evaluation.json"
    has_evaluation = recipe.evaluation is not None and evaluation_file.exists()
    log = json.loads((directory / "student" / "training_log.json").read_text(encoding="utf-8"))
    facts = CardFacts(
        model_name=recipe.name,
        teacher=public_name(teacher),
        base_model=teacher.name if has_id(teacher) else None,
        auxiliary=public_name(auxiliary),
        languages=sorted({language for language in kept["language"] if language}),
        kept_seconds=sum(kept["duration"]),
        labelled_seconds=sum(chunks["duration"]),
        training_log=_shown_log([row for row in log if "loss" in row]),
        evaluation=json.loads(evaluation_file.read_text(encoding="utf-8")) if has_evaluation else {},
    )
    facts.facts = _facts(facts, recipe, directory, chunks, same=teacher.path == auxiliary.path)
    return facts


def has_id(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is known by an id on the Hub, and not by a folder of the user's."""
    return checkpoint.origin in ("hub", "hub cache") or (checkpoint.origin == "wheels" and "/" in checkpoint.name)


def public_name(checkpoint: Checkpoint) -> str:
    """Its id, or the last part of its folder: a card tells no paths."""
    return checkpoint.name if has_id(checkpoint) else Path(checkpoint.name).name


def render_card(facts: CardFacts) -> ModelCard:
    """The card as huggingface_hub knows it: metadata in front, then the template filled in."""
    evaluation = facts.evaluation
    student = evaluation.get("student")
    data = ModelCardData(
        language=facts.languages or None,
        base_model=facts.base_model,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=list(TAGS),
        model_name=facts.model_name if student else None,
        eval_results=_eval_results(student) if student else None,
    )
    template = resources.files("k2d_hf.publishing") / "model_card_template.md"
    return ModelCard.from_template(
        data,
        template_str=template.read_text(encoding="utf-8"),
        model_name=facts.model_name,
        teacher=f"[{facts.teacher}](https://huggingface.co/{facts.teacher})" if facts.base_model else facts.teacher,
        languages_text=f" (language token {', '.join(facts.languages)})" if facts.languages else "",
        kept_text=minutes(facts.kept_seconds),
        facts=facts.facts,
        training_log=facts.training_log,
        machine=f"{platform.machine()}, {platform.system()}",
        evaluation_table=_markdown_table(evaluation) if evaluation else "",
        evaluation_recordings=student["recordings"] if student else None,
        evaluation_minutes=f"{student['audio_seconds'] / 60:.1f}" if student else None,
        evaluation_engine=student["engine"] if student else None,
        evaluation_beam=student["beam_size"] if student else None,
    )


def _facts(facts: CardFacts, recipe: Recipe, directory: Path, chunks: Any, *, same: bool) -> list[tuple[str, str]]:
    from collections import Counter

    config = json.loads((directory / "student" / "config.json").read_text(encoding="utf-8"))
    reasons = Counter(reason for reason in chunks["drop_reason"] if reason).most_common()
    defaults = {"ce_weight": 0.8, "kl_weight": 1.0, "auxiliary_weight": 0.0, "temperature": 2.0}
    weights = {name: recipe.distil.get(name, value) for name, value in defaults.items()}
    others = {n: value for n, value in recipe.distil.items() if n not in defaults and not n.endswith(("_dir", "_path"))}
    layers = recipe.student.decoder_layers
    return [
        ("teacher", f"{facts.teacher}, beam {recipe.label.beam_size}"),
        ("auxiliary", "the teacher's checkpoint, decoding each chunk from scratch" if same else facts.auxiliary),
        ("speech labelled", minutes(facts.labelled_seconds)),
        ("speech kept", f"{minutes(facts.kept_seconds)} ({100 * facts.kept_seconds / facts.labelled_seconds:.0f}%)"),
        ("validation", f"{recipe.validate.metric}, threshold {recipe.validate.threshold:g}"),
        *([("dropped", ", ".join(f"{count} {reason}" for reason, count in reasons))] if reasons else []),
        ("encoder layers", str(config["encoder_layers"])),
        (
            "decoder layers",
            f"{config['decoder_layers']} ({layers if isinstance(layers, int) else ', '.join(map(str, layers))})",
        ),
        ("loss", ", ".join(f"{name} {value:g}" for name, value in weights.items())),
        ("training arguments", ", ".join(f"{name} {_shown(value)}" for name, value in others.items()) or "defaults"),
        ("versions", ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)),
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown_log(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """At most a few rows, evenly spaced, the last among them."""
    step = max(1, -(-len(rows) // SHOWN_LOGS))
    shown = rows[len(rows) - 1 :: -step][::-1] if rows else []
    cells = {"loss": "{:.3f}", "ce": "{:.3f}", "kl": "{:.3f}", "agreement": "{:.1%}"}
    return [
        {"step": str(row["step"]), **{k: form.format(row[k]) if k in row else "-" for k, form in cells.items()}}
        for row in shown
    ]


def _markdown_table(evaluation: dict[str, dict[str, Any]]) -> str:
    rows = [["model", *COLUMNS], ["---"] * (len(COLUMNS) + 1), *table_rows(evaluation)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    if "teacher" in evaluation and "student" in evaluation:
        ratio = speed_up(evaluation["teacher"], evaluation["student"])
        table += f"\n\nThe student is {ratio:.1f} times as fast as its teacher."
    return table


def _eval_results(student: dict[str, Any]) -> list[EvalResult]:
    named = [("mer", "Mixed error rate"), ("zh_cer", "Mandarin CER"), ("en_wer", "English WER")]
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            dataset_type="evaluation",
            dataset_name="evaluation recordings of the recipe",
            metric_type={"mer": "mer", "zh_cer": "cer", "en_wer": "wer"}[key],
            metric_name=name,
            metric_value=round(100 * student[key], 2),
        )
        for key, name in named
        if student.get(key) is not None
    ]
