"""A Trainer that, killed and resumed, ends as one that was not: complete checkpoints, and sums between logs.

The transformers Trainer restores weights, optimizer, random numbers and the place in the data; this adds the rest. The
mark of a checkpoint (K2D, stage 3) is a record of its files and their sizes, written last; without it, or with another
size, a crash came between.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from k2d_hf.distillation.measures import RunningSums
from k2d_hf.errors import K2DError
from k2d_hf.files.storage import NO_ROOM, flush_folder, no_room, write_atomic

logger = logging.getLogger(__name__)

RECORD = "whole_checkpoint.json"
SUMS = "running_sums.json"
ADAM_STATES = 2  # numbers that the optimizer keeps of each that is trained
NAME = re.compile(r"checkpoint-(\d+)")
# Messages of torch, safetensors and numpy, without an error number, of a file that could not be written
UNWRITTEN = (
    *("no space left", "os error 28", "file too large", "os error 27", "quota exceeded", "os error 122"),
    *("inline_container", "pytorchstreamwriter", "requested and"),
)


class ResumableTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` whose checkpoints are marked when they are complete, and that resumes exactly where one ends.

    With a `save_total_limit` of 1 nothing is left should it be killed while it writes the next: keep 2.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sums = {mode: RunningSums() for mode in ("train", "eval")}
        self._resumed_from: Path | None = None
        self.add_callback(_ResumeSums(self))

    def last_complete_checkpoint(self) -> Path | None:
        """The last checkpoint in `args.output_dir` that is complete for every process; all of them must call this.

        Raises:
            K2DError: if only some processes see complete checkpoints, as on machines without a disk in common.
        """
        mine = {step_of(path): path for path in complete_checkpoints(str(self.args.output_dir))}
        everyone = gather_object([sorted(mine)])
        common = set.intersection(*map(set, everyone))
        if common:
            return mine[max(common)]
        if any(everyone):
            raise K2DError(
                f"{self.args.output_dir}: not every process sees the same complete checkpoints; give the machines a "
                "disk in common, or set save_on_each_node"
            )
        return None

    @property
    def resumed_step(self) -> int:
        """The step of the checkpoint that is resumed; 0 at a fresh start."""
        if self._resumed_from is None:
            return 0
        return int(TrainerState.load_from_json(str(self._resumed_from / TRAINER_STATE_NAME)).global_step)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; `True` resumes the last complete checkpoint, with the results of an unbroken run.

        Raises:
            K2DError: if there is no complete checkpoint to resume, or the disk is full.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.last_complete_checkpoint()
            if resume_from_checkpoint is None:
                raise K2DError(f"{self.args.output_dir}: no complete checkpoint to resume; train from the start")
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        output = super().train(str(self._resumed_from) if self._resumed_from else None, *args, **kwargs)
        return TrainOutput(output.global_step, output.metrics["train_loss"], output.metrics)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the mean loss of all steps, and not only of those since a resume."""
        if "train_loss" in logs and self.state.global_step:
            logs["train_loss"] = self._total_loss_scalar / self.state.global_step
        super().log(logs, start_time)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, but none after the last step: where that was done before a resume, it takes one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._resumed_from is not None and folder.resolve() == self._resumed_from.resolve():
            return  # it is there, and complete
        writes = self.args.should_save
        if writes:
            shutil.rmtree(folder, ignore_errors=True)  # what a crash left there, and perhaps a mark of old
        self.accelerator.wait_for_everyone()
        with room_for(folder, self._checkpoint_bytes(), partial=folder if writes else None):
            super()._save_checkpoint(model, trial)
            self._save_sums(folder)
            self.accelerator.wait_for_everyone()  # each process writes its random state
            if writes:
                mark_complete(folder)

    def _checkpoint_bytes(self) -> int:
        model: Any = self.model
        parameters = list(model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        return sum(p.numel() * p.element_size() for p in parameters) + ADAM_STATES * 4 * trained

    def _save_sums(self, folder: Path) -> None:
        everyone = gather_object([[*self._sums["train"].so_far(), self._tr_loss.item()]])
        if self.args.should_save:
            state = {"processes": everyone, "loss": self._total_loss_scalar, "logged": self._globalstep_last_logged}
            (folder / SUMS).write_text(json.dumps(state), encoding="utf-8")

    def resume_sums(self) -> None:
        """Take up the sums of the checkpoint that is resumed, if it has any."""
        self._sums["train"] = RunningSums()
        file = self._resumed_from / SUMS if self._resumed_from else None
        if file is None or not file.exists():
            return
        state = json.loads(file.read_text(encoding="utf-8"))
        *sums, loss = _share(state["processes"], self.args.process_index, self.args.world_size)
        self._sums["train"].resume(sums, self.args.device)
        self._tr_loss += loss
        self._total_loss_scalar = state["loss"]
        self._globalstep_last_logged = state["logged"]


def _share(processes: list[list[float]], index: int, count: int) -> list[float]:
    """A process's own sums and loss; where there were more or fewer processes, the first has all sums."""
    if len(processes) == count:
        return processes[index]
    *sums, losses = (list(column) for column in zip(*processes, strict=True))
    mine = [sum(column) if index == 0 else 0.0 for column in sums]
    return [*mine, sum(losses) / len(losses)]  # the Trainer averages it over processes


class _ResumeSums(TrainerCallback):
    """Takes up the sums when the Trainer has set its own to 0."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.resume_sums()


def mark_complete(folder: Path) -> None:
    """Flush the files of a checkpoint to the disk, then write their names and sizes into it, completely or not at all.

    K2DError if the disk is full, OSError if a file cannot be flushed.
    """
    files = _files(folder)
    for name in files:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    for parent in {(folder / name).parent for name in files} | {folder, folder.parent}:
        flush_folder(parent)
    write_atomic(folder / RECORD, json.dumps(files, indent=1).encode())


def what_is_missing(folder: Path) -> str | None:
    """What a checkpoint lacks, in words; None if it is complete."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no {RECORD}, which is written last"
    if not isinstance(recorded, dict):
        return f"{RECORD} cannot be read"
    found = _files(folder)
    for name, size in recorded.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != size:
            return f"{name} has {found[name]} bytes of {size}"
    return None


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a training, the last first; a warning names those after the last that are not."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if NAME.fullmatch(path.name) and path.is_dir()]
    complete: list[Path] = []
    for folder in sorted(folders, key=step_of, reverse=True):
        reason = what_is_missing(folder)
        if reason is None:
            complete.append(folder)
        elif not complete:
            logger.warning("%s: passed over, as a crash cut it short (%s)", folder, reason)
    return complete


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def room_for(target: Path, needed: int, *, partial: Path | None = None) -> Iterator[None]:
    """Raise K2DError where the disk is full, in the place of what torch, safetensors and numpy raise.

    The target takes about `needed` bytes; the folder `partial` is deleted, so that the next try has its room.
    """
    try:
        yield
    except Exception as error:
        code, message = getattr(error, "errno", None), str(error).lower()
        if not (any(part in message for part in UNWRITTEN) if code is None else code in NO_ROOM):
            raise
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise no_room(target, needed, "cannot be written") from error


def _files(folder: Path) -> dict[str, int]:
    """Names below a checkpoint, and sizes in bytes, without the record."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
