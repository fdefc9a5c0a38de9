"""How a `K2DTrainer` is built: its student, teacher and auxiliary, and what it refuses, in one line each.

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
from k2d_hf.distillation.batches.streams import described, is_stream
from k2d_hf.distillation.batches.target_columns import check_embedding, kind_of, values_of
from k2d_hf.distillation.measures import GENERATED, MixedErrorRateMetric, known_metric
from k2d_hf.distillation.models import base_whisper, find_processor, load_for_loss, output_embedding, with_adapters
from k2d_hf.distillation.settings import AGREEMENT, keeps_teacher
from k2d_hf.distillation.sharding import check_loaded, complete_loading
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper
from k2d_hf.models.generation import complete_generation_config
from k2d_hf.models.parts import set_language

logger = logging.getLogger(__name__)


def check_arguments(args: Any) -> K2DTrainingArguments:
    """The settings of a trainer, by default the paper's; of several GPUs that one process sees it takes the first.

    The Trainer would split each batch over them by DataParallel, which copies the model in every step, multiplies the
    batch in silence, and is of no use to a loss that is formed outside the model.

    Raises:
        K2DError: for the arguments of another trainer, which know nothing of this loss.
    """
    args = K2DTrainingArguments(output_dir="k2d-student") if args is None else args
    if not isinstance(args, K2DTrainingArguments):
        plain = isinstance(args, TrainingArguments)
        has = ", which has the same fields and those of the loss" if plain else ""
        raise K2DError(f"args is a {type(args).__name__}: give a K2DTrainingArguments{has}")
    if args.n_gpu > 1:
        logger.warning(
            "one process sees %d GPUs and trains on the first: start it by `torchrun --nproc_per_node %d` to train on "
            "all, or set CUDA_VISIBLE_DEVICES",
            args.n_gpu,
            args.n_gpu,
        )
        args._n_gpu = 1
    if args.bf16 and args.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        logger.warning("bf16: without AVX-512 torch multiplies it some hundred times slower than float32; set it false")
    return args


def check_evaluation(args: K2DTrainingArguments, compute_metrics: Any) -> None:
    """Raise K2DError for figures of text where the student writes none: the loss holds no logits to take them from."""
    if args.predict_with_generate:
        return
    if compute_metrics is not None:
        raise K2DError("compute_metrics is never called without predict_with_generate: set it true")
    best = args.metric_for_best_model or ""
    if known_metric(best) in GENERATED:
        raise K2DError(f"metric_for_best_model {best!r} needs predict_with_generate: set it true, or choose 'loss'")


def open_metrics(args: K2DTrainingArguments, compute_metrics: Any, processor: WhisperProcessor) -> Any:
    """The metrics that are given, or the mixed error rate where the student generates text."""
    check_evaluation(args, compute_metrics)
    return compute_metrics or (MixedErrorRateMetric(processor) if args.predict_with_generate else None)


def check_sampling(args: K2DTrainingArguments, rows: Any, collator: Any) -> None:
    """Raise K2DError for an order of chunks that needs lengths which nobody gives."""
    strategy = args.train_sampling_strategy
    if args.shares and strategy != "random":
        raise K2DError(f"train_sampling_strategy {strategy!r}: shares draw an order of their own; take 'random'")
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


def check_token_weighting(args: K2DTrainingArguments, rows: Any) -> None:
    """Raise K2DError for chunks of which nobody knows what the auxiliary wrote, where tokens are weighed by it."""
    names = getattr(described(rows), "column_names", None)
    if args.token_weighting == AGREEMENT and names and "auxiliary_text" not in names:
        raise K2DError("token_weighting agreement: the chunks have no column auxiliary_text; `k2d validate` writes it")


def open_student(
    model: Any,
    model_init: Callable[..., Any] | None,
    processor: Any,
    teacher: Any,
    *,
    args: K2DTrainingArguments,
    ready: Callable[[Any], Any],
) -> tuple[Any, FreshStudents | None, WhisperProcessor]:
    """The first student, the maker of others where `model_init` makes them, and their processor.

    Without a processor it is the one saved with student or teacher; `ready` is that of `FreshStudents`. An output layer
    of its own is trained without DDP's search for unused parameters, which does not see that the loss multiplies by it.

    Raises:
        K2DError: if both, or none, of `model` and `model_init` are given, there is no complete processor, or an output
            layer of its own meets that search.
    """
    if (model is None) == (model_init is None):
        raise K2DError("give either model, a student or its checkpoint, or model_init, which makes one")
    students = None if model_init is None else FreshStudents(model_init, seed=args.seed, ready=ready)
    student = students.first if students else _load_student(model)
    processor = processor or find_processor(model or student, teacher)
    if not isinstance(processor, WhisperProcessor):
        raise K2DError(
            f"processing_class is a {type(processor).__name__}: give a WhisperProcessor, feature extractor and "
            "tokenizer in one, or leave it out to take the one that is saved with the student or the teacher"
        )
    base = base_whisper(student)
    complete_generation_config(base, lambda: processor.tokenizer)
    if base.proj_out.weight is not base.model.decoder.embed_tokens.weight:
        if args.ddp_find_unused_parameters:
            raise K2DError(
                "ddp_find_unused_parameters: not with an output layer that is not tied to the embedding; set it false"
            )
        args.ddp_find_unused_parameters = False
    return student, students, processor


def _load_student(model: Any) -> Any:
    """The student itself, loaded completely by every process where it is a checkpoint."""
    with complete_loading():
        return load_whisper(model) if isinstance(model, (str, Path)) else model


class FreshStudents:
    """`model_init` as transformers' Trainer calls it, with each student made `ready` for training.

    The Trainer calls it once at construction and once for each training or trial. The first student is made before,
    as models and data are held against it, and is what the first call gives; the trainer replaces it by one that is
    ready. The Trainer sets the seed of the others.
    """

    def __init__(self, model_init: Callable[..., Any], *, seed: int, ready: Callable[[Any], Any]) -> None:
        self.model_init, self.ready = model_init, ready
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
        return _load_student(self.model_init(trial) if takes_trial else self.model_init())


def prepare_student(
    student: Any,
    args: K2DTrainingArguments,
    processor: Any,
    peft_config: Any,
    *,
    language: str | None,
    stored_embedding: torch.Tensor | None,
) -> Any:
    """A student with adapters put in, parts frozen and its language set, as the settings ask for.

    K2DError if its embedding is not the plain matrix that the loss, or the stored hidden states, take.
    """
    base = base_whisper(student)
    complete_generation_config(base, lambda: processor.tokenizer)
    if peft_config is not None:
        set_seed(args.seed)  # adapters begin at random
        student = with_adapters(student, peft_config, freeze_encoder=args.freeze_encoder)
    embedding = output_embedding(base)
    if stored_embedding is not None and not torch.equal(stored_embedding.to(embedding.device), embedding):
        raise K2DError("model_init: its embedding is not that of the teacher whose hidden states are stored")
    if args.freeze_encoder:
        base.freeze_encoder()
    if args.freeze_embeddings:
        for module in (base.model.decoder.embed_tokens, base.proj_out):  # mostly one and the same matrix
            module.requires_grad_(False)
    set_language(base, language, args.task)
    return student


def open_frozen_models(
    teacher: Any,
    auxiliary: Any,
    student: Any,
    rows: Any,
    args: K2DTrainingArguments,
    teacher_embedding: torch.Tensor | None = None,
) -> tuple[Any, Any, list[str], torch.Tensor | None]:
    """Teacher and auxiliary as the loss needs them, and which of them the soft targets of `rows` replace.

    Where hidden states of the teacher do, the last is the embedding with which they become logits.

    Raises:
        K2DError: if a model that the loss needs is missing, or does not fit the student.
    """
    teacher_weight = args.kl_weight or args.encoder_weight
    given = {"teacher": (teacher, teacher_weight), "auxiliary": (auxiliary, args.auxiliary_weight)}
    in_memory = {"teacher": keeps_teacher(vars(args)), "auxiliary": args.on_policy}  # whatever is stored of it
    columns = described(rows)
    lacking = [name for name, (model, weight) in given.items() if weight and model is None and not in_memory[name]]
    stored = [name for name in lacking if kind_of(columns, name)]
    embedding: torch.Tensor | None = None
    if "teacher" in stored and kind_of(columns) == "hidden":
        embedding = output_embedding(student).detach() if teacher_embedding is None else teacher_embedding
        embedding = embedding.clone()  # the student's will change
        if not is_stream(rows):
            check_embedding(values_of(rows, "target_embedding"), embedding)
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None  # that of training's products
    with complete_loading():
        loaded = {
            name: load_for_loss(name, model, student, weight, dtype)
            for name, (model, weight) in given.items()
            if name not in stored
        }
    check_loaded(student=student, **loaded)
    return loaded.get("teacher"), loaded.get("auxiliary"), stored, embedding
