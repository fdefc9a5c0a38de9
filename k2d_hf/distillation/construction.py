"""How a `K2DTrainer` is built: where its students come from, and what it refuses, in one line each.

What is refused would otherwise fail, or pass in silence, hours later.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, WhisperProcessor, set_seed

from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.measures import GENERATED, known_metric
from k2d_hf.distillation.sharding import loading_whole
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper

logger = logging.getLogger(__name__)


def check_arguments(args: Any) -> K2DTrainingArguments:
    """The settings of a trainer; the defaults, where there are none.

    Raises:
        K2DError: for the arguments of another trainer, which know nothing of this loss.
    """
    if args is None:
        return K2DTrainingArguments(output_dir="k2d-student")
    if not isinstance(args, K2DTrainingArguments):
        plain = isinstance(args, TrainingArguments)
        has = ", which has the same fields and those of the loss" if plain else ""
        raise K2DError(f"args is a {type(args).__name__}: give a K2DTrainingArguments{has}")
    use_one_gpu(args)
    return args


def use_one_gpu(args: K2DTrainingArguments) -> None:
    """Take the first of several GPUs where one process sees them, and say so.

    The Trainer would split each batch over them by DataParallel, which copies the model in every step, multiplies the
    batch in silence, and is of no use to a loss that is formed outside the model.
    """
    if args.n_gpu > 1:
        logger.warning(
            "one process sees %d GPUs and trains on the first: start it by `torchrun --nproc_per_node %d` to train on "
            "all, or set CUDA_VISIBLE_DEVICES",
            args.n_gpu,
            args.n_gpu,
        )
        args._n_gpu = 1


def number_format(args: K2DTrainingArguments) -> torch.dtype | None:
    """Number format of models that only help: that of training's products; None leaves a model as it is stored here."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def check_processor(processor: Any) -> WhisperProcessor:
    """A processor that has both of its parts.

    Raises:
        K2DError: for a feature extractor or a tokenizer alone, or a processor of another model.
    """
    if isinstance(processor, WhisperProcessor):
        return processor
    raise K2DError(
        f"processing_class is a {type(processor).__name__}: give a WhisperProcessor, feature extractor and tokenizer "
        "in one, or leave it out to take the one that is saved with the student or the teacher"
    )


def check_evaluation(args: K2DTrainingArguments, compute_metrics: Any) -> None:
    """Refuse figures of what the student writes where it writes nothing.

    The loss never holds the logits of a batch, so there are none to compute metrics from, as `Seq2SeqTrainer` does.

    Raises:
        K2DError: naming the setting to change.
    """
    if args.predict_with_generate:
        return
    if compute_metrics is not None:
        raise K2DError("compute_metrics is never called without predict_with_generate: set it true")
    best = args.metric_for_best_model or ""
    if known_metric(best) in GENERATED:
        raise K2DError(f"metric_for_best_model {best!r} needs predict_with_generate: set it true, or choose 'loss'")


def check_sampling(args: K2DTrainingArguments, rows: Any, collator: Any) -> None:
    """Refuse an order of chunks that needs lengths which nobody gives.

    Raises:
        K2DError: naming the setting, and what serves instead.
    """
    strategy = args.train_sampling_strategy
    if strategy not in ("group_by_length", "batch_rebalance") or not hasattr(rows, "column_names"):
        return
    if args.length_column_name in (rows.column_names or ()):
        return
    if strategy == "group_by_length" and isinstance(collator, K2DDataCollator):
        return  # labels are grouped by length in the form that each epoch gives them
    raise K2DError(
        f"train_sampling_strategy {strategy!r}: the chunks have no column {args.length_column_name!r}; add one with "
        "the tokens of each label, or take 'random', which groups labels of like length (group_by_label_length)"
    )


def check_untied(args: K2DTrainingArguments, student: Any) -> None:
    """Settings under which an output layer of its own is trained by several processes.

    The loss multiplies by it outside the model, where DDP's search for unused parameters does not see it.

    Raises:
        K2DError: if that search was asked for.
    """
    if student.proj_out.weight is student.model.decoder.embed_tokens.weight:
        return
    if args.ddp_find_unused_parameters:
        raise K2DError(
            "ddp_find_unused_parameters: not with an output layer that is not tied to the embedding; set it false"
        )
    args.ddp_find_unused_parameters = False


def warn_of_slow_bf16(args: K2DTrainingArguments) -> None:
    """Warn where bfloat16 is computed by a processor that has no instructions for it."""
    if args.bf16 and args.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        logger.warning("bf16: without AVX-512 torch multiplies it some hundred times slower than float32; set it false")


def load_student(model: Any) -> Any:
    """The student itself, loaded whole by every process where it is a checkpoint."""
    with loading_whole():
        return load_whisper(model) if isinstance(model, (str, Path)) else model


class FreshStudents:
    """`model_init` as transformers' Trainer calls it, with each student made ready for training.

    The Trainer calls it once at construction and once for each training or trial. The first student is made before,
    as models and data are held against it, and is what the first call gives.

    Args:
        model_init: makes a student, of nothing or of a trial.
        seed: set before the first one is made; the Trainer sets it for the others.
        ready: what is done with each, but for the first, which the trainer replaces by one that is ready.
    """

    def __init__(self, model_init: Callable[..., Any], *, seed: int, ready: Callable[[Any], Any]) -> None:
        self.model_init = model_init
        self.ready = ready
        set_seed(seed)
        self.first: Any = self._make(None)

    def __call__(self, trial: Any) -> Any:
        """The next student."""
        if self.first is None:
            return self.ready(self._make(trial))
        student, self.first = self.first, None
        return student

    def _make(self, trial: Any) -> Any:
        takes_trial = bool(inspect.signature(self.model_init).parameters)
        return load_student(self.model_init(trial) if takes_trial else self.model_init())
