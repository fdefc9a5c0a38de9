"""What a run leaves, in a form in which two runs are compared bit for bit: all but times, and where it lies."""

import hashlib
import json
import re
from pathlib import Path

from datasets import load_from_disk

# Times, and work done, which is less where an encoder need not run.
TIMES = (
    "total_flos",
    "rtf",
    "rtf_runs",
    "measurement",  # which says when that was
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "tokens_per_second",
)
MEMORY = "_mem_"  # in the names of what the Trainer measures of it
WEIGHTS = ("student-before", "student")


def results_of(folder):
    """Chunks, labels, targets, weights, figures, transcripts and card of a run, by name."""
    folder = Path(folder)
    found = {name: _rows(folder / name) for name in ("chunks", "validated", "targets")}
    for name in WEIGHTS:
        found[f"{name} weights"] = hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        for file in ("config.json", "generation_config.json"):
            found[f"{name} {file}"] = _json(folder / name / file)
    for file in ("evaluation.json", "labelling.json", "student/training_log.json"):
        found[file] = _json(folder / file) if (folder / file).exists() else None
    transcripts = folder / "evaluation_transcripts.jsonl"
    found["transcripts"] = transcripts.read_text(encoding="utf-8") if transcripts.exists() else None
    found["card"] = _card(folder / "student" / "README.md")
    return found


def differences(one, other):
    """Names of what two runs differ in."""
    return [name for name in one if one[name] != other[name]]


def _rows(folder):
    return load_from_disk(str(folder)).with_format(None)[:] if (folder / "state.json").exists() else None


def _json(path):
    text = re.sub(r'"[^"]*/(student(-before)?)"', r'"RUN/\1"', path.read_text(encoding="utf-8"))
    return _without_times(json.loads(text))


def _without_times(value):
    if isinstance(value, dict):
        return {
            name: _without_times(inner) for name, inner in value.items() if name not in TIMES and MEMORY not in name
        }
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def _card(path):
    """The card without minutes of training, real-time factors (the two columns before the last) and what they make of speed."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(\| training \| \d+ steps?, [\d.]+ epochs?), [\d.,]+ min", r"\1", text)
    text = re.sub(r"^(\|.*\|) [\d.]+ \| [\d.]+ (\| [\d.]+ M \|)$", r"\1 RTF \2", text, flags=re.MULTILINE)
    text = re.sub(r"The student is [\d.]+ times as fast", "The student is X times as fast", text)
    return re.sub(r"real-time factor [\d.]+|RTF [\d.]+", "RTF", text)
