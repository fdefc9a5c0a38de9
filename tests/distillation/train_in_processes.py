"""Run by torchrun from test_processes.py: several trainings on the data of a folder; figures and weights go there.

Usage: train_in_processes.py FOLDER OUTPUT SCENARIO [SCENARIO ...]
"""

import json
import os
import sys
from functools import lru_cache
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
from k2d_hf.distillation.sharding import gather_student

ROWS_OF_A_STEP = 4
KEEP_STATES = {"keep_encoder_states": True}
ACCUMULATED = {"gradient_accumulation_steps": 2, "chunk_weighting": "soft"}
LORA = {"peft_config": LoraConfig(r=2, target_modules=["q_proj", "v_proj"])}
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-3}
EPOCHS = 2

# The data set, and settings: plain gradient descent, so that weights show the gradients.
SCENARIOS = {
    "states": ("chunks", {**KEEP_STATES, "predict_with_generate": True, "generation_max_length": 8}),
    "hidden": ("hidden", KEEP_STATES),
    "top": ("top", {"freeze_encoder": False, **ACCUMULATED}),
    "random order, untied": ("chunks", {"group_by_label_length": False}),
    "stream": ("chunks", {"max_steps": 4, "shuffle_buffer": 5}),
    "fsdp": ("chunks", {"fsdp": True, **ACCUMULATED, "predict_with_generate": True, "generation_max_length": 8}),
    "fsdp hidden": ("hidden", {"fsdp": True, **KEEP_STATES, **LORA}),
    "fsdp top": ("top", {"fsdp": "full_shard auto_wrap", "freeze_encoder": False}),
}


@lru_cache(maxsize=1)
def processor_of(folder):
    """The teacher's, read once."""
    return WhisperProcessor.from_pretrained(folder / "teacher")


def build(folder, output, scenario, world, **changes):
    """The trainer of a scenario, for a step of so many rows over all processes."""
    data, settings = SCENARIOS[scenario]
    chunks = load_from_disk(folder / data)
    share = ROWS_OF_A_STEP // world
    defaults = {"num_train_epochs": EPOCHS, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
    steps = EPOCHS * len(chunks) // ROWS_OF_A_STEP // settings.get("gradient_accumulation_steps", 1)
    if world > 1:
        defaults |= {"save_strategy": "steps", "save_steps": steps - 1}  # and at the end
    settings = {
        **defaults,
        **settings,
        **changes,
        "per_device_train_batch_size": share,
        "per_device_eval_batch_size": share,
    }
    if world == 1:
        settings.pop("fsdp", None)
    student = create_student(str(folder / "teacher"), language="zh")
    if "untied" in scenario:
        untie(student)
    return trainer_for(
        student,
        chunks.to_iterable_dataset() if scenario == "stream" else chunks,
        processor_of(folder),
        output,
        teacher_model=str(folder / "teacher") if data == "chunks" else None,
        eval_dataset=chunks.select(range(7)),  # which no two processes share evenly
        ddp_backend="gloo" if world > 1 else None,
        **settings,
    )


def train(folder, output, scenario, *, world=1):
    """Train, evaluate, write what came out, and do the last step once more from the checkpoint before it."""
    trainer = build(folder, output, scenario, world)
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model(output / "saved")
    weights = weights_of(trainer)
    figures = {
        "logs": [entry for entry in trainer.state.log_history if "loss" in entry],
        "metrics": metrics,
        "states": len(list(output.rglob("*.npy"))),
        "sharded": all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters()),
        "processes": trainer.args.world_size,
    }
    if world > 1:
        if "fsdp" in SCENARIOS[scenario][1]:  # torch cannot load the state of an optimizer that has none
            trainer = build(folder, output / "adam", scenario, world, **ADAM)
            trainer.train()
        figures["resumed"] = interrupted(folder, scenario, world, trainer)
    if trainer.is_world_process_zero():
        (output / "figures.json").write_text(json.dumps(figures))
        torch.save(weights, output / "weights.pt")


def interrupted(folder, scenario, world, trainer):
    """Where a training whose last checkpoint is broken goes on, and how far from the whole one it ends."""
    output, weights = Path(trainer.args.output_dir), weights_of(trainer)
    last = output / f"checkpoint-{trainer.state.global_step}"
    if trainer.is_world_process_zero():
        (last / "trainer_state.json").write_text("{")
    trainer.accelerator.wait_for_everyone()
    changes = {name: getattr(trainer.args, name) for name in ADAM}
    again = build(folder, output, scenario, world, **changes)
    again.train(resume_from_checkpoint=True)
    ended = weights_of(again)
    logs = [[entry for entry in one.state.log_history if "loss" in entry] for one in (trainer, again)]
    difference = None
    if trainer.is_world_process_zero():
        difference = max(float((weights[name] - ended[name]).abs().max()) for name in weights)
    return {
        "from": again.resumed_step,
        "steps": again.state.global_step,
        "epoch": again.resumed_step // (again.state.global_step // EPOCHS),
        "difference": difference,
        "losses": [[entry["loss"] for entry in log] for log in logs],
    }


def untie(student):
    """Give a student an output layer of its own."""
    student.config.tie_word_embeddings = False
    student.proj_out.weight = torch.nn.Parameter(student.proj_out.weight.detach().clone())


def weights_of(trainer):
    """The student's weights, whole, on the first process."""
    student = gather_student(trainer.model, trainer.accelerator)
    return None if student is None else {name: tensor.clone() for name, tensor in student.state_dict().items()}


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
    torch.distributed.destroy_process_group()
