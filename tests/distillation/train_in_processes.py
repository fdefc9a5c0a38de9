"""Run by torchrun from test_processes.py: several trainings on the data of a folder; figures and weights go there.

Usage: train_in_processes.py FOLDER OUTPUT SCENARIO [SCENARIO ...]
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from datasets import load_from_disk
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import WhisperProcessor

from distillation.tiny_training import trainer_for
from k2d_hf import create_student

ROWS_OF_A_STEP = 4
FSDP = {"fsdp": True}
LORA = {"peft_config": LoraConfig(r=2, target_modules=["q_proj", "v_proj"])}

# The data set, whether there is a teacher, and settings: plain gradient descent, so that weights show the gradients.
SCENARIOS = {
    "states": ("chunks", True, {"keep_encoder_states": True, "num_train_epochs": 2}),
    "accumulated": ("chunks", True, {"gradient_accumulation_steps": 2, "chunk_weighting": "soft"}),
    "hidden": ("hidden", False, {"keep_encoder_states": True, "num_train_epochs": 2}),
    "top": ("top", False, {"freeze_encoder": False}),
    "fsdp": ("chunks", True, {**FSDP, "gradient_accumulation_steps": 2, "chunk_weighting": "soft"}),
    "fsdp bf16": ("chunks", True, {**FSDP, "bf16": True}),
    "fsdp sharded": (
        "chunks",
        True,
        {**FSDP, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}, "save_strategy": "steps", "save_steps": 1},
    ),
    "fsdp states": ("hidden", False, {**FSDP, "keep_encoder_states": True, "num_train_epochs": 2}),
    "fsdp top": ("top", False, {"fsdp": "full_shard auto_wrap", "freeze_encoder": False}),
    "fsdp lora": ("chunks", True, {**FSDP, **LORA, "num_train_epochs": 2}),
}


def train(folder, output, scenario, *, world=1, **changes):
    """Train, evaluate seven rows, which no two processes share evenly, and write what came out."""
    data, has_teacher, settings = SCENARIOS[scenario]
    chunks = load_from_disk(folder / data)
    defaults = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": ROWS_OF_A_STEP // world,
        "per_device_eval_batch_size": ROWS_OF_A_STEP // world,
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_grad_norm": 0.0,
        "ddp_backend": "gloo" if world > 1 else None,
    }
    settings = {**defaults, **settings, **changes}
    if world == 1:
        settings.pop("fsdp", None)
    trainer = trainer_for(
        create_student(str(folder / "teacher"), language="zh"),
        chunks,
        WhisperProcessor.from_pretrained(folder / "teacher"),
        output,
        teacher_model=str(folder / "teacher") if has_teacher else None,
        eval_dataset=chunks.select(range(7)),
        **settings,
    )
    trainer.train(resume_from_checkpoint=trainer.last_whole_checkpoint())
    metrics = trainer.evaluate()
    trainer.save_model(output / "saved")
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        states = len(list(output.rglob("*.npy")))
        sharded = all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
        figures = {"logs": logs, "metrics": metrics, "states": states, "sharded": sharded, "processes": world}
        (output / "figures.json").write_text(json.dumps(figures))
        torch.save(weights, output / "weights.pt")
    return trainer


def shard_on_cpus():
    """Let accelerate shard: it does so on accelerators alone, and leaves the setting out of account elsewhere.

    What shards is torch, which does it on CPUs as well.
    """
    begin = AcceleratorState.__init__

    def begin_sharding(self, *args, fsdp_plugin=None, **kwargs):
        if fsdp_plugin is not None and not self._shared_state:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)

    AcceleratorState.__init__ = begin_sharding


if __name__ == "__main__":
    shard_on_cpus()
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:]:
        train(folder, output / name, name, world=int(os.environ["WORLD_SIZE"]))
