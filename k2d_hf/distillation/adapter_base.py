"""What trained adapters belong to: the student as it was before training, named in `base.json` beside them.

Adapters of PEFT carry the name that the student's config has, which for a student made in memory is its teacher's. On
the teacher they would load with other layers and no more than a warning. So a student that lies in no folder is
written beside its adapters, once a training.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf.distillation.models import base_whisper
from k2d_hf.files.folders import write_folder
from k2d_hf.models.checkpoint import ADAPTER, ADAPTER_BASE
from k2d_hf.models.student_folder import save_student

BASE = "base"  # the folder of a student that was made in memory, in that of the training's results


class AdapterBase:
    """Where the student is that adapters are trained on.

    Args:
        model: the student as the trainer was given it: a checkpoint, or a model in memory.
        output_dir: folder of the training's results.
        processor: saved with a student that lies nowhere yet.
    """

    def __init__(self, model: Any, output_dir: str | Path, processor: WhisperProcessor) -> None:
        self.given = str(model) if isinstance(model, (str, Path)) else None
        self.folder = Path(output_dir).absolute() / BASE
        self.processor = processor
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
        student = unadapted(adapted)
        write_folder(self.folder, lambda folder: save_student(student, self.processor, folder), replace=True)
        self._written = True

    def describe(self, folder: Path) -> None:
        """Say in a folder of saved adapters, for PEFT and for us, what they belong to."""
        source = self.name if self.given else os.path.join(os.curdir, os.path.relpath(self.folder, folder))
        base = {"sources": [source], "encoder_layers": None, "decoder_layers": None}
        (folder / ADAPTER_BASE).write_text(json.dumps(base, indent=2) + "\n", encoding="utf-8")
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = self.name
        (folder / ADAPTER).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def unadapted(adapted: Any) -> WhisperForConditionalGeneration:
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
