"""Each stage as a command over a few short recordings, its undisturbed results, and how others compare with them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from datasets import load_from_disk
from pyarrow import parquet

from faults.sounds import RATE, write_listening_whisper, write_recordings

LENGTHS = 9, 34, 14, 13, 22  # s
OF_A_SHARD = 2  # recordings, or chunks
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")
DURATIONS = ("runtime", "per_second")  # how the times in a log of training are called


@dataclass(frozen=True)
class Result:
    """What a stage left: rows, or the files of a model; and its list of what was skipped."""

    rows: tuple
    skipped: str | None


class Stages:
    """Commands by name (a command, or `command engine`), run in a folder of their own, the output being `out`."""

    def __init__(self, folder: Path, processor, k2d):
        self.folder, self.k2d = folder, k2d
        self._results = {}
        self.recordings = write_recordings(folder / "recordings", LENGTHS)
        soundfile.write(self.recordings / "silent.wav", np.zeros(2 * RATE), RATE)
        (self.recordings / "text.wav").write_text("no sound")
        for seed, name in enumerate(("teacher", "auxiliary")):
            write_listening_whisper(folder / name, processor, seed=seed)

    def command(self, name, *more):
        """The arguments of `k2d` for a stage; the stages that it needs are run first."""
        command, _, engine = name.partition(" ")
        plain = ["--language", "zh", "--engine", engine, "--shard-size", OF_A_SHARD, "--batch-size", 1]
        models = ["--student", self.folder / "student", "--teacher", self.folder / "teacher"]
        match command:
            case "label":
                inputs = [
                    self.recordings,
                    "--teacher",
                    self.folder / "teacher",
                    "--condition-on-previous-text",
                    "false",
                ]
                options = [*plain, "--beam-size", 1]
            case "validate":
                inputs = [self.output("label transformers"), "--auxiliary", self.folder / "auxiliary"]
                options = [*plain, "--threshold", 1.0]
            case "targets":
                inputs, options = (
                    [self.output("validate transformers"), *models],
                    ["--shard-size", OF_A_SHARD, "--batch-size", 1],
                )
            case "distil":
                inputs = [self.output("validate transformers"), *models]
                steps = {
                    "max_steps": 6,
                    "save_steps": 2,
                    "logging_steps": 1,
                    "per_device_train_batch_size": 1,
                    "use_cpu": True,
                }
                options = [part for key, value in steps.items() for part in ("--set", f"{key}={value}")]
        if command in ("targets", "distil"):
            self._student()
        return [command, *inputs, *options, *more, "--output", "out"]

    def output(self, name):
        """The folder that an undisturbed run wrote."""
        self.undisturbed(name)
        return self.folder / name / "out"

    def undisturbed(self, name):
        """How an undisturbed run ended, and what it left."""
        if name not in self._results:
            place = self.folder / name
            command = self.command(name)
            place.mkdir()
            ended = self.k2d.run(place, *command)
            assert ended.status == 0, ended.said
            self._results[name] = ended, result_in(place)
        return self._results[name]

    def _student(self):
        if not (self.folder / "student").exists():
            ended = self.k2d.run(self.folder, "student", self.folder / "teacher", "--output", "student")
            assert ended.status == 0, ended.said


def result_in(place):
    """What a stage left in a folder; None if there is no output yet."""
    output, skipped = place / "out", place / "out.skipped.jsonl"
    if not output.exists():
        return None
    rows = model_in(output) if (output / "config.json").exists() else rows_in(output)
    return Result(rows, skipped.read_text(encoding="utf-8") if skipped.exists() else None)


def rows_in(folder):
    """Rows of a data set, each as a text from which no bit is missing."""
    data = load_from_disk(str(folder))
    return tuple(repr(sorted(row.items())) for row in data.with_format("arrow")[:].to_pylist())


def model_in(folder):
    """The files of a trained model, bit for bit, and its log of training without times."""
    log = json.loads((folder / "training_log.json").read_text(encoding="utf-8"))
    timeless = [sorted((key, value) for key, value in entry.items() if not key.endswith(DURATIONS)) for entry in log]
    return (*((folder / name).read_bytes() for name in MODEL_FILES), repr(timeless))


def finished_shards(place):
    """What finished work is in a folder: identity of each file, so that one that is written again shows.

    Not counted is a shard with a recording that could not be read, for that is tried again.
    """
    files = [path for path in place.glob("out.resume/**/*") if path.suffix in (".parquet", ".arrow")]
    whole = [path for path in files if not path.name.startswith(".") and not _to_be_tried_again(path)]
    stats = {path.relative_to(place): path.stat() for path in whole}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _to_be_tried_again(path):
    if path.suffix != ".parquet":
        return False
    return bool(set(parquet.read_table(path, columns=["reason"])["reason"].to_pylist()) - {None, "no speech found"})


def left_over(place):
    """What lies beside the output when all is done, but for the lock and the list of what was skipped."""
    known = {"out", ".out.lock", "out.skipped.jsonl"}
    return sorted(path.name for path in place.iterdir() if path.name not in known)
