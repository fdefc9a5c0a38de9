"""Input and output of each stage of a run, from the files that the stages left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from k2d_hf.data.chunking import PASSED_OVER, PASSED_OVER_INSIDE
from k2d_hf.evaluation.table import millions
from k2d_hf.formatting import counted
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.facts import StageFact, length


class ReportedStage(Protocol):
    """As much of a stage as the report shows."""

    name: ClassVar[str]

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """What went into the stage and what came out of it."""

    def noted_seconds(self, folder: Path) -> float | None:
        """How long the stage took by its own files, for records of runs that do not have it."""


def stage_facts(
    directory: Path, table: ChunkTable, evaluation: Mapping[str, Any], stages: Iterable[ReportedStage]
) -> list[StageFact]:
    """The stages that are done, of all the `stages` of the method in order."""
    entries = read_json(directory / "stages.json", {})
    facts = []
    for stage in stages:
        entry = entries.get(stage.name)
        if not isinstance(entry, dict):
            continue
        given, made = stage.in_and_out(directory, table, evaluation)
        seconds = entry.get("seconds")
        seconds = stage.noted_seconds(directory) if seconds is None else seconds
        facts.append(
            StageFact(
                name=stage.name,
                input=given,
                output=made,
                seconds=seconds if isinstance(seconds, (int, float)) else None,
                line=str(entry.get("line", "")),
            )
        )
    return facts


def labelling_facts(directory: Path, table: ChunkTable) -> tuple[str, str]:
    """Recordings read and skipped; chunks, and what reached none."""
    figures = read_json(directory / "labelling.json", {})
    skipped: Counter[str] = Counter()
    files, lost = set(table.recordings), 0.0  # s, of segments
    for row in read_lines(directory / "skipped.jsonl"):
        reason = str(row.get("reason", "no reason"))
        if not (isinstance(row.get("start"), (int, float)) and isinstance(row.get("end"), (int, float))):
            skipped[reason] += 1
            files.add(str(row.get("recording")))
        elif reason not in (PASSED_OVER, PASSED_OVER_INSIDE):
            lost += row["end"] - row["start"]
    given = counted(len(files), "recording") if table.recordings else ""
    if skipped:
        given += f", skipped {', '.join(f'{count} {reason}' for reason, count in skipped.most_common())}"
    made = all_chunks(table)
    if given and "seconds" in figures:
        given += f"; {length(figures['seconds'])} read"
    if made and figures.get("seconds_without_text"):
        made += f", {length(figures['seconds_without_text'])} of it without text"
    if made and figures.get("seconds_passed_over"):
        made += f"; {length(figures['seconds_passed_over'])} passed over"
    return given, made + (f"; {length(lost)} of segments left out" if lost and made else "")


def validation_facts(table: ChunkTable) -> tuple[str, str]:
    """Chunks before and after, with the reasons of dropping."""
    reasons = ", ".join(f"{share.chunks:,} {share.verdict}" for share in table.shares[1:])
    return all_chunks(table), kept_chunks(table) + (f"; dropped: {reasons}" if reasons else "")


def mixing_facts(directory: Path) -> str:
    """What each source of texts added."""
    parts = []
    for name, one in read_json(directory / "mixing.json", {}).items():
        if isinstance(one, dict) and isinstance(one.get("chunks"), int):
            share = one.get("share")
            weight = f", {share:.0%} of an epoch" if isinstance(share, float) else ""
            seconds = length(float(one.get("seconds") or 0.0))
            parts.append(f"{counted(one['chunks'], 'chunk')} of {name}, {seconds}{weight}")
    return "; ".join(parts)


def student_facts(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """Parameters of teacher and student, by figures of an evaluation by set and model."""
    models: Mapping[str, Any] = next(iter(evaluation.values()), {})
    sizes = [models.get(name, {}).get("parameters") for name in ("teacher", "student")]
    teacher, student = (f"{millions(size)} parameters" if isinstance(size, int) else "" for size in sizes)
    return teacher, student


def training_facts(directory: Path, table: ChunkTable) -> tuple[str, str]:
    """Chunks, steps and epochs."""
    training = read_json(directory / "student" / "training_facts.json", {})
    chunks, steps, epochs = (training.get(name) for name in ("chunks", "steps", "epochs"))
    done = counted(steps, "step") if isinstance(steps, int) else ""
    if done and isinstance(epochs, (int, float)):
        done += f", {epochs:g} epochs"
    return (counted(chunks, "chunk") if isinstance(chunks, int) else kept_chunks(table)), done


def evaluation_facts(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """Recordings, and the MER of the first model and the last, of each set."""
    given, made = [], []
    for name, models in evaluation.items():
        measured = list(models.values())
        first, last = measured[0], measured[-1]
        title = f"{name}: " if name else ""
        given.append(f"{title}{counted(first['recordings'], 'recording')}, {length(first['audio_seconds'])}")
        made.append(f"{title}MER {100 * first['mer']:.1f}% to {100 * last['mer']:.1f}%")
    return "; ".join(given), "; ".join(made)


def all_chunks(table: ChunkTable) -> str:
    """Number and length of all chunks."""
    return f"{counted(len(table.seconds), 'chunk')}, {length(float(table.seconds.sum()))}" if len(table.seconds) else ""


def kept_chunks(table: ChunkTable) -> str:
    """Number and length of the chunks that were kept."""
    return f"{counted(table.shares[0].chunks, 'chunk')}, {length(table.shares[0].seconds)}" if table.shares else ""


def read_json(path: Path, otherwise: Any) -> Any:
    """The value in a file, if it can be read and has the type of `otherwise`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a JSONL file; none if it cannot be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)]
