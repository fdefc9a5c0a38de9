"""What went into each stage of a run and what came out of it, from the files that the stages left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from k2d_hf.data.chunking import PASSED_OVER, PASSED_OVER_INSIDE
from k2d_hf.evaluation.table import millions
from k2d_hf.reporting.chunks import KEPT, ChunkTable
from k2d_hf.reporting.facts import StageFact
from k2d_hf.reporting.names import counted, length


def stage_facts(directory: Path, table: ChunkTable, evaluation: dict[str, dict[str, Any]]) -> list[StageFact]:
    """The stages that are done, in the order of the method."""
    entries = _read(directory / "stages.json")
    training = _read(directory / "student" / "training_facts.json")
    tell = {
        "label": lambda: _label(directory, table),
        "validate": lambda: _validate(table),
        "student": lambda: _student(evaluation),
        "targets": lambda: (_kept(table), ""),
        "distil": lambda: _distil(table, training),
        "evaluate": lambda: _evaluate(evaluation),
    }
    facts = []
    for name in ("label", "validate", "student", "targets", "distil", "evaluate", "card", "push"):
        entry = entries.get(name)
        if not isinstance(entry, dict):
            continue
        went_in, came_out = tell.get(name, lambda: ("", ""))()
        seconds = entry.get("seconds")
        if seconds is None and name == "distil":
            seconds = training.get("seconds")
        facts.append(
            StageFact(
                name=name,
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


def _label(directory: Path, table: ChunkTable) -> tuple[str, str]:
    figures = _read(directory / "labelling.json")
    skipped, files, lost = skipped_counts(directory)
    went_in = counted(len(files.union(table.recordings)), "recording") if table.recordings else ""
    if skipped:
        went_in += f", skipped {', '.join(f'{count} {reason}' for reason, count in skipped.most_common())}"
    came_out = _all(table)
    if went_in and "seconds" in figures:
        went_in += f"; {length(figures['seconds'])} read"
    if came_out and figures.get("seconds_without_text"):
        came_out += f", {length(figures['seconds_without_text'])} of it without text"
    if came_out and figures.get("seconds_passed_over"):
        came_out += f"; {length(figures['seconds_passed_over'])} passed over"
    return went_in, came_out + (f"; {length(lost)} of segments left out" if lost and came_out else "")


def _validate(table: ChunkTable) -> tuple[str, str]:
    dropped = [share for share in table.shares if share.verdict != KEPT]
    told = ", ".join(f"{share.chunks:,} {share.verdict}" for share in dropped)
    return _all(table), _kept(table) + (f"; dropped: {told}" if told else "")


def _student(evaluation: dict[str, dict[str, Any]]) -> tuple[str, str]:
    sizes = [evaluation.get(name, {}).get("parameters") for name in ("teacher", "student")]
    teacher, student = (f"{millions(size)} parameters" if isinstance(size, int) else "" for size in sizes)
    return teacher, student


def _distil(table: ChunkTable, training: dict[str, Any]) -> tuple[str, str]:
    chunks, steps, epochs = (training.get(name) for name in ("chunks", "steps", "epochs"))
    done = counted(steps, "step") if isinstance(steps, int) else ""
    if done and isinstance(epochs, (int, float)):
        done += f", {epochs:g} epochs"
    return (counted(chunks, "chunk") if isinstance(chunks, int) else _kept(table)), done


def _evaluate(evaluation: dict[str, dict[str, Any]]) -> tuple[str, str]:
    if not evaluation:
        return "", ""
    first, last = next(iter(evaluation.values())), next(reversed(evaluation.values()))
    went_in = f"{counted(first['recordings'], 'recording')}, {length(first['audio_seconds'])}"
    return went_in, f"MER {100 * first['mer']:.1f}% to {100 * last['mer']:.1f}%"


def _all(table: ChunkTable) -> str:
    return f"{counted(len(table.seconds), 'chunk')}, {length(float(table.seconds.sum()))}" if len(table.seconds) else ""


def _kept(table: ChunkTable) -> str:
    kept = next((share for share in table.shares if share.verdict == KEPT), None)
    return f"{counted(kept.chunks, 'chunk')}, {length(kept.seconds)}" if kept is not None else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
