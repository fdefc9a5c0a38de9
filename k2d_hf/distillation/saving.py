"""What a trainer saves and pushes: complete students, adapters with what they belong to, and the card (K2D, stage 3).

Adapters of PEFT carry the name that the student's config has, which for a student made in memory is its teacher's. On
the teacher they would load with other layers and no more than a warning. So `base.json` beside the adapters names the
student as it was before training, and one that lies in no folder is written beside them, once a training.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_token
from transformers import WhisperForConditionalGeneration

from k2d_hf.distillation.card_callback import ModelCardCallback
from k2d_hf.distillation.checkpoints import ResumableTrainer
from k2d_hf.distillation.models import base_whisper
from k2d_hf.errors import K2DError
from k2d_hf.files.folders import write_folder
from k2d_hf.models.checkpoint import ADAPTER, ADAPTER_BASE
from k2d_hf.models.student_folder import rewrite_config, save_student, saving_complete_processor
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding

BASE = "base"  # the folder of a student that was made in memory, in that of the training's results


class AdapterBase:
    """Where the student is that adapters are trained on: the checkpoint `model`, or else a folder in `output_dir`."""

    def __init__(self, model: Any, output_dir: str | Path, processor: Any) -> None:
        self.given = str(model) if isinstance(model, (str, Path)) else None
        self.folder, self.processor = Path(output_dir).absolute() / BASE, processor
        self._written = False

    @property
    def name(self) -> str:
        """Folder or id under which transformers finds the student."""
        if self.given is None:
            return str(self.folder)
        return os.path.abspath(self.given) if os.path.isdir(self.given) else self.given

    def write(self, adapted: Any) -> None:
        """Write a student that was given in memory to its folder, unless this training has done so."""
        if self.given is not None or self._written:
            return
        student = _unadapted(adapted)
        write_folder(self.folder, lambda folder: save_student(student, self.processor, folder), replace=True)
        self._written = True

    def describe(self, folder: Path) -> None:
        """Write into a folder of saved adapters, for PEFT and for us, what they belong to."""
        source = self.name if self.given else os.path.join(os.curdir, os.path.relpath(self.folder, folder))
        base = {"sources": [source], "encoder_layers": None, "decoder_layers": None}
        (folder / ADAPTER_BASE).write_text(json.dumps(base, indent=2) + "\n", encoding="utf-8")
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = self.name
        (folder / ADAPTER).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _unadapted(adapted: Any) -> WhisperForConditionalGeneration:
    """The student beneath adapters as it was before they were put in, sharing its weights."""
    base: Any = base_whisper(adapted)
    own = {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in base.state_dict().items()
    }
    with torch.device("meta"):
        student: Any = WhisperForConditionalGeneration(base.config)
    names = student.state_dict().keys()
    student.load_state_dict({name: tensor for name, tensor in own.items() if name in names}, assign=True)
    student.tie_weights()
    student.generation_config = base.generation_config
    return student


class SavingTrainer(ResumableTrainer):
    """A trainer whose folders open wherever people have Whisper."""

    card: ModelCardCallback
    _peft_config: Any
    _adapter_base: AdapterBase | None = None

    def _open_saving(self, model: Any, teacher: Any, auxiliary: Any, chunks: Any) -> None:
        """Get ready to save what is trained; models and chunks are those that the trainer was given."""
        if self._peft_config is not None:
            self._adapter_base = AdapterBase(model, str(self.args.output_dir), self.processing_class)
        self.card = ModelCardCallback(self, teacher=teacher, auxiliary=auxiliary, train_dataset=chunks)
        self.add_callback(self.card)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `ResumableTrainer.train`; K2DError too if the last push to the Hub in the background failed."""
        if self._adapter_base is not None and self.args.should_save:
            self._adapter_base.write(self.model)  # before it is sharded
        output = super().train(*args, **kwargs)
        self._check_pushes()
        return output

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card to `args.output_dir`; arguments as for the Trainer's, by `ModelCardCallback.create`."""
        self.card.create(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with saving_complete_processor(self):
            super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        rewrite_config(folder)
        if self._adapter_base is not None:
            base_whisper(self.model).generation_config.save_pretrained(str(folder))  # PEFT saves adapters, and no more
            self._adapter_base.write(self.model)
            self._adapter_base.describe(folder)
        carry_decoding(str(folder), NOT_EVALUATED, replace=False)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        with saving_complete_processor(self):
            super()._push_from_checkpoint(checkpoint_folder)

    def _check_pushes(self) -> None:
        """Raise the error of a push that ran in the background, which the Trainer leaves there."""
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", []):
            if error := job.exception():
                message = " ".join(str(error).split())
                if token := self.args.hub_token or get_token():
                    message = message.replace(token, "<token>")  # a server may send back what it was sent
                # not `from error`, whose text may hold it too
                raise K2DError(
                    f"training is done, but its push to {self.hub_model_id} failed: {message}; "
                    f"the checkpoints are in {self.args.output_dir}"
                ) from None
