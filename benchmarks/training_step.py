"""One step of distillation against the same step as Distil-Whisper's public recipe describes it, side by side.

The reference pads labels to 448 positions, runs the frozen encoder once for student and teacher, runs the teacher in
every step, and holds float32 logits of both over the whole vocabulary. Ours is `K2DTrainer.compute_loss`: `exact` with
the teacher, `hidden` and `top` with its stored hidden states or top tokens instead, and each with the encoder's states
from disk (`cached`).
Every side ends with clipped gradients and the same optimizer. Weights are random, which changes no speed.

    python benchmarks/training_step.py                                       # Whisper base on a CPU
    python benchmarks/training_step.py --memory                              # peak memory, a process a side
    python benchmarks/training_step.py --geometry large-v2 --device cuda --dtype bfloat16 --batch 16 --memory
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable
from typing import Any

import measure
import synthetic
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from k2d_hf import K2DTrainer, K2DTrainingArguments, create_student
from k2d_hf.distillation.batches.target_columns import embedding_digest
from k2d_hf.models.whisper_tokens import IGNORED, MAX_TARGET_TOKENS

GEOMETRIES = {  # width, layers of encoder and of decoder, heads
    "smallest": (64, 2, 2, 2),  # of no Whisper: to see that a benchmark runs
    "tiny": (384, 4, 4, 6),
    "base": (512, 6, 6, 8),
    "small": (768, 12, 12, 12),
    "large-v2": (1280, 32, 32, 20),
}
VOCABULARY = synthetic.VOCABULARY
MEL_BINS, FRAMES = 80, 3000
SIDES = ("reference", "exact", "exact_cached", "hidden", "hidden_cached", "top", "top_cached")
CE_WEIGHT, KL_WEIGHT, TEMPERATURE = 0.8, 1.0, 2.0  # the paper's; T: Distil-Whisper's


def whisper(geometry: str, device: str = "cpu") -> WhisperForConditionalGeneration:
    """A Whisper of a named geometry with random weights, in float32, drawn on the device where it is to be."""
    width, encoder_layers, decoder_layers, heads = GEOMETRIES[geometry]
    config = WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=MEL_BINS, d_model=width,
        encoder_layers=encoder_layers, decoder_layers=decoder_layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
    )  # fmt: skip
    with torch.device(device):
        return WhisperForConditionalGeneration(config)


def batch_of(batch: int, tokens: int, width: int) -> dict[str, Tensor]:
    """Random features, encoder states, decoder inputs and labels as the collator gives them."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50000, (batch, tokens + 1), generator=generator)
    return {
        "input_features": torch.randn(batch, MEL_BINS, FRAMES, generator=generator),
        "encoder_states": torch.randn(batch, FRAMES // 2, width, generator=generator).half(),
        "decoder_input_ids": ids[:, :-1].contiguous(),
        "labels": ids[:, 1:].contiguous(),
    }


def soft_targets(kind: str, labels: Tensor, k: int, width: int) -> dict[str, Tensor]:
    """Random soft targets of the labels' shape, as the collator gives them."""
    generator = torch.Generator().manual_seed(1)
    if kind == "hidden":
        return {"teacher_hidden": torch.randn(*labels.shape, width, generator=generator).half()}
    ids = torch.randint(0, VOCABULARY, (*labels.shape, 1), generator=generator) + torch.arange(k) * (VOCABULARY // k)
    logprobs = torch.randn(*labels.shape, k + 1, generator=generator).log_softmax(-1)[..., :-1]
    return {"teacher_top_ids": (ids % VOCABULARY).int(), "teacher_top_logprobs": logprobs.half()}


def told_of_targets(kind: str, student: Any) -> Dataset:
    """A data set of one row whose columns say what targets there are."""
    described = {"target_temperature": [TEMPERATURE], "target_embedding": [embedding_digest(student.proj_out.weight)]}
    if kind == "hidden":
        return Dataset.from_dict({"teacher_hidden": [[[0.0]]], **described})
    return Dataset.from_dict({"teacher_top_ids": [[[0]]], "teacher_top_logprobs": [[[0.0]]], **described})


class Reference:
    """The step as Distil-Whisper's recipe describes it."""

    def __init__(self, student: Any, teacher: Any, batch: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.student, self.teacher, self.dtype = student.train(), teacher.eval().requires_grad_(False), dtype
        student.freeze_encoder()
        teacher.model.encoder = student.model.encoder  # one encoder for both
        rows, tokens = batch["labels"].shape
        self.features = batch["input_features"]
        self.labels = batch["labels"].new_full((rows, MAX_TARGET_TOKENS), IGNORED)
        self.labels[:, :tokens] = batch["labels"]
        self.inputs = batch["labels"].new_zeros((rows, MAX_TARGET_TOKENS))
        self.inputs[:, :tokens] = batch["decoder_input_ids"]

    def loss(self) -> Tensor:
        """Cross-entropy inside the model, then KL over all positions, masked."""
        autocast = torch.autocast(self.features.device.type, self.dtype, enabled=self.dtype != torch.float32)
        with autocast:
            outputs = self.student(
                input_features=self.features, decoder_input_ids=self.inputs, labels=self.labels, use_cache=False
            )
            with torch.no_grad():
                states = BaseModelOutput(last_hidden_state=outputs.encoder_last_hidden_state)
                teacher_logits = self.teacher(
                    encoder_outputs=states, decoder_input_ids=self.inputs, use_cache=False
                ).logits
        target = (teacher_logits.float() / TEMPERATURE).softmax(-1)
        predicted = (outputs.logits.float() / TEMPERATURE).log_softmax(-1)
        divergence = nn.functional.kl_div(predicted, target, reduction="none")
        mask = self.labels >= 0
        kl = (divergence * mask.unsqueeze(-1)).sum() / mask.sum()
        return CE_WEIGHT * outputs.loss + KL_WEIGHT * TEMPERATURE**2 * kl


class Ours:
    """The step as K2DTrainer takes it."""

    def __init__(self, side: str, student: Any, teacher: Any, batch: dict[str, Tensor], settings: Any) -> None:
        if teacher is not None:
            teacher.model.encoder = student.model.encoder  # as where the trainer loads it itself
        kind, _, cached = side.partition("_")
        names = ["decoder_input_ids", "labels", "encoder_states" if cached else "input_features"]
        self.batch = {name: batch[name] for name in names}
        if kind in ("hidden", "top"):
            width = batch["encoder_states"].shape[-1]
            targets = soft_targets(kind, batch["labels"].cpu(), settings.k, width)
            self.batch |= {name: tensor.to(settings.device) for name, tensor in targets.items()}
        with tempfile.TemporaryDirectory() as folder:
            arguments = K2DTrainingArguments(
                folder,
                report_to="none",
                use_cpu=settings.device == "cpu",
                bf16=settings.dtype == "bfloat16",
                freeze_embeddings=settings.freeze_embeddings,
            )
            self.trainer = K2DTrainer(
                student.train(),
                arguments,
                teacher_model=teacher,
                train_dataset=told_of_targets(kind, student),
                processing_class=synthetic.processor(),  # no text passes through it
                data_collator=lambda rows: rows,
            )
        self.student: Any = torch.compile(student, backend=settings.compile) if settings.compile else student

    def loss(self) -> Tensor:
        """The trainer's own."""
        return self.trainer.compute_loss(self.student, self.batch)


def step_of(side: str, settings: argparse.Namespace) -> Callable[[], None]:
    """A whole step of one side: loss, gradients, clipping, optimizer."""
    torch.manual_seed(0)
    needs_teacher = side.startswith(("reference", "exact"))
    teacher: Any = whisper(settings.geometry, settings.device)
    student = create_student(teacher, settings.decoder_layers)
    if not needs_teacher:
        teacher = None
    student.to(settings.device)
    width = GEOMETRIES[settings.geometry][0]
    batch = {n: t.to(settings.device) for n, t in batch_of(settings.batch, settings.tokens, width).items()}
    work: Any
    if side == "reference":
        work = Reference(student, teacher, batch, getattr(torch, settings.dtype))
    else:
        work = Ours(side, student, teacher, batch, settings)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # what made the models is no part of a step

    def step() -> None:
        work.loss().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def speed(settings: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each side, in turns, and how many times faster than the reference."""
    synchronise = torch.cuda.synchronize if settings.device == "cuda" else lambda: None
    steps = {side: step_of(side, settings) for side in settings.sides}
    seconds = measure.in_turns(steps, rounds=settings.rounds, warmup=2, synchronise=synchronise)
    figures: dict[str, Any] = {"seconds": {side: measure.median(taken) for side, taken in seconds.items()}}
    if "reference" in seconds:
        figures["times_faster"] = {
            side: measure.ratio(seconds, "reference", side) for side in settings.sides if side != "reference"
        }
    return figures


def memory(settings: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of each side in GiB, each in a process of its own, and its share of the reference's."""
    options = [
        f"--{name}={getattr(settings, name)}" for name in ("geometry", "device", "dtype", "batch", "tokens", "k")
    ]
    options += [f"--decoder-layers={settings.decoder_layers}"] + ["--freeze-embeddings"] * settings.freeze_embeddings
    peaks = {side: measure.in_process([__file__, "--peak-of", side, *options])["peak"] for side in settings.sides}
    figures: dict[str, Any] = {"peak_gib": {side: round(peak, 2) for side, peak in peaks.items()}}
    if "reference" in peaks:
        figures["share_of_reference"] = {side: round(peak / peaks["reference"], 3) for side, peak in peaks.items()}
    return figures


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", default="base", choices=GEOMETRIES)
    parser.add_argument("--decoder-layers", type=int, default=2, help="of the student")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=120, help="supervised tokens of a label")
    parser.add_argument("--k", type=int, default=32, help="tokens of a soft target")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--freeze-embeddings", action="store_true")
    parser.add_argument("--compile", metavar="BACKEND", help="compile the student of our sides, as with inductor")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.peak_of:
        step = step_of(settings.peak_of, settings)
        for _ in range(3):
            step()
        peak = torch.cuda.max_memory_allocated() / measure.GIB if settings.device == "cuda" else measure.peak_memory()
        measure.report("training_step", {"peak": peak})
        return
    figures = memory(settings) if settings.memory else speed(settings)
    asked = {
        name: getattr(settings, name) for name in ("geometry", "decoder_layers", "device", "dtype", "batch", "tokens")
    }
    asked |= {"freeze_embeddings": settings.freeze_embeddings}
    if settings.device == "cuda":
        asked["gpu"] = torch.cuda.get_device_name()
    measure.report("training_step", {**asked, **figures}, packages=("torch", "transformers", "accelerate"))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
