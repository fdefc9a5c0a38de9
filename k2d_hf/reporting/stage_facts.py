"""What went into each stage of a run and what came out of it, from the files that the stages left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from k2d_hf.data.chunking import PASSED_OVER, PASSED_OVER_INSIDE
from k2d_hf.evaluation.table import millions
from k2d_hf.reporting.chunks import KEPT, ChunkTable
from k2d_hf.reporting.facts import StageFact
from k2d_hf.reporting.names import counted, length


class ReportedStage(Protocol):
    """As much of a stage as the report shows."""

    name: ClassVar[str]

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """What went into the stage and what came out of it."""


def stage_facts(
    directory: Path, table: ChunkTable, evaluation: Mapping[str, Any], stages: Iterable[ReportedStage]
) -> list[StageFact]:
    """The stages that are done, of all the `stages` of the method in order."""
    entries = _read(directory / "stages.json")
    facts = []
    for stage in stages:
        entry = entries.get(stage.name)
        if not isinstance(entry, dict):
            continue
        went_in, came_out = stage.in_and_out(directory, table, evaluation)
        seconds = entry.get("seconds")
        facts.append(
            StageFact(
                name=stage.name,
                went_in=went_in,
                came_out=came_out,
                seconds=seconds if isinstance(seconds, (int, float)) else None,
                line=str(entry.get("line", "")),
            )
        )
    return facts


def skipped_counts(directory: Path) -> tuple[Counter[str], set[str], float]:
    """Recordings that could not be used, by reason, their files, and the seconds of segments that were left out."""
    skipped: Counter[str] = Counter()
    files: set[str] = set()
    lost = 0.0
    try:
        lines = (directory / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        rows = []
    for row in rows:
        reason = str(row.get("reason", "no reason"))
        if not (isinstance(row.get("start"), (int, float)) and isinstance(row.get("end"), (int, float))):
            skipped[reason] += 1
            files.add(str(row.get("recording")))
        elif reason not in (PASSED_OVER, PASSED_OVER_INSIDE):
            lost += row["end"] - row["start"]
    return skipped, files, lost


def labelling_facts(directory: Path, table: ChunkTable) -> tuple[str, str]:
    """Recordings read and skipped; chunks, and what reached none."""
    figures = _read(directory / "labelling.json")
    skipped, files, lost = skipped_counts(directory)
    went_in = counted(len(files.union(table.recordings)), "recording") if table.recordings else ""
    if skipped:
        went_in += f", skipped {', '.join(f'{count} {reason}' for reason, count in skipped.most_common())}"
    came_out = all_chunks(table)
    if went_in and "seconds" in figures:
        went_in += f"; {length(figures['seconds'])} read"
    if came_out and figures.get("seconds_without_text"):
        came_out += f", {length(figures['seconds_without_text'])} of it without text"
    if came_out and figures.get("seconds_passed_over"):
        came_out += f"; {length(figures['seconds_passed_over'])} passed over"
    return went_in, came_out + (f"; {length(lost)} of segments left out" if lost and came_out else "")


def validation_facts(table: ChunkTable) -> tuple[str, str]:
    """Chunks before and after, with the reasons of dropping."""
    dropped = [share for share in table.shares if share.verdict != KEPT]
    told = ", ".join(f"{share.chunks:,} {share.verdict}" for share in dropped)
    return all_chunks(table), kept_chunks(table) + (f"; dropped: {told}" if told else "")


def student_facts(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """Parameters of teacher and student."""
    sizes = [evaluation.get(name, {}).get("parameters") for name in ("teacher", "student")]
    teacher, student = (f"{millions(size)} parameters" if isinstance(size, int) else "" for size in sizes)
    return teacher, student


def training_facts(directory: Path, table: ChunkTable) -> tuple[str, str]:
    """Chunks, steps and epochs."""
    training = _read(directory / "student" / "training_facts.json")
    chunks, steps, epochs = (training.get(name) for name in ("chunks", "steps", "epochs"))
    done = counted(steps, "step") if isinstance(steps, int) else ""
    if done and isinstance(epochs, (int, float)):
        done += f", {epochs:g} epochs"
    return (counted(chunks, "chunk") if isinstance(chunks, int) else kept_chunks(table)), done


def evaluation_facts(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """Recordings, and the MER of the first model and the last."""
    if not evaluation:
        return "", ""
    models = list(evaluation.values())
    first, last = models[0], models[-1]
    went_in = f"{counted(first['recordings'], 'recording')}, {length(first['audio_seconds'])}"
    return went_in, f"MER {100 * first['mer']:.1f}% to {100 * last['mer']:.1f}%"


def all_chunks(table: ChunkTable) -> str:
    """Number and length of all chunks."""
    return f"{counted(len(table.seconds), 'chunk')}, {length(float(table.seconds.sum()))}" if len(table.seconds) else ""


def kept_chunks(table: ChunkTable) -> str:
    """Number and length of the chunks that were kept."""
    kept = next((share for share in table.shares if share.verdict == KEPT), None)
    return f"{counted(kept.chunks, 'chunk')}, {length(kept.seconds)}" if kept is not None else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
