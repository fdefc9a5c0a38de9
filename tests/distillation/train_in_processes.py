"""Run by torchrun from test_processes.py: train on the data of a folder, evaluate, write figures and weights there.

Usage: train_in_processes.py FOLDER OUTPUT BATCH_SIZE
"""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import load_from_disk
from transformers import WhisperProcessor

from distillation.tiny_training import trainer_for
from k2d_hf import create_student


def main(folder, output, batch_size):
    """Two epochs of plain gradient descent, then an evaluation of seven rows, which no two processes share evenly."""
    chunks = load_from_disk(folder / "chunks")
    trainer = trainer_for(
        create_student(str(folder / "teacher"), language="zh"),
        chunks,
        WhisperProcessor.from_pretrained(folder / "teacher"),
        output,
        teacher_model=str(folder / "teacher"),
        eval_dataset=chunks.select(range(7)),
        num_train_epochs=2,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        keep_encoder_states=True,
        predict_with_generate=True,
        generation_max_length=8,
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0.0,
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    trainer.train()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        states = len(list(output.rglob("*.npy")))
        figures = {"logs": logs, "metrics": metrics, "states": states, "processes": trainer.args.world_size}
        (output / "figures.json").write_text(json.dumps(figures))
        torch.save(trainer.model.state_dict(), output / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
