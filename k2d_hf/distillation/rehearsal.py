"""A rehearsal of training: a Trainer with the real settings, and a Whisper so small that a step takes milliseconds.

What a setting is worth is known to three libraries, each of which asks when it needs it: at the first step, hours after
the first stage began. So before that one step is taken, on noise, with every optimizer, scheduler, loader and callback
that the settings name. Nothing is written, nothing is sent, and random numbers continue as if nothing had been.
"""

from __future__ import annotations

import json
import logging
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.formatting import error_message

# Of what only a GPU or several processes can do: a machine that lacks them can rehearse the rest.
ANYWHERE: Mapping[str, Any] = {
    **dict.fromkeys(("fp16", "bf16", "fp16_full_eval", "bf16_full_eval"), False),
    **dict.fromkeys(("tf32", "fsdp", "fsdp_config", "deepspeed", "ddp_backend"), None),
    "use_cpu": True,
}
# What a step on noise cannot show, or would show slowly; each has a check of its own, or is the caller's.
APART: Mapping[str, Any] = {
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "torch_compile_backend", "torch_compile_mode"), None),
    **dict.fromkeys(("torch_compile", "full_determinism", "push_to_hub", "predict_with_generate"), False),
    **dict.fromkeys(("logging_strategy", "save_strategy", "eval_strategy"), "no"),
    "report_to": "none",
    "disable_tqdm": True,
    "max_steps": 1,
    "gradient_accumulation_steps": 1,
    "train_sampling_strategy": "random",
    "seed": 0,
}
_REHEARSED: dict[str, str | None | K2DError] = {}  # by settings: what this machine lacks for them, or what is wrong


def on_any_machine(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with which the Trainer's arguments can be made anywhere, and are otherwise the same."""
    return {"use_cpu": True, **values, **({"tf32": None} if "tf32" in values else {})}


def rehearse(values: Mapping[str, Any]) -> str | None:
    """What this machine lacks for a step of training with some settings of `K2DTrainingArguments` (without `peft`).

    Raises:
        K2DError: naming the setting that would stop training anywhere.
    """
    key = json.dumps(values, sort_keys=True, default=str)
    if key not in _REHEARSED:
        try:
            _REHEARSED[key] = _rehearsed(values)
        except K2DError as error:
            _REHEARSED[key] = error
    found = _REHEARSED[key]
    if isinstance(found, K2DError):
        raise K2DError(str(found))
    return found


def _rehearsed(values: Mapping[str, Any]) -> str | None:
    import torch

    failure = _failure(values)
    if failure is None:
        return None
    anywhere = {**values, **{name: value for name, value in ANYWHERE.items() if name in values}}
    if torch.accelerator.is_available() or anywhere != values:
        anywhere = {**anywhere, "use_cpu": True}
        everywhere = _failure(anywhere)
        if everywhere is None:
            return _named(values, failure)
        values, failure = anywhere, everywhere
    raise K2DError(_named(values, failure))


def _named(values: Mapping[str, Any], failure: str) -> str:
    """A failure with the setting that it comes from: the one that fails alone, or without which nothing fails."""
    for name in sorted(values, key=lambda name: (name not in failure, name not in ANYWHERE)):  # the likeliest first
        if _failure({name: values[name]}) is not None:
            return _with_name(name, failure)
    for name in reversed(list(values)):  # what is more particular comes later
        if _failure({other: value for other, value in values.items() if other != name}) is None:
            return _with_name(name, failure)
    return failure


def _with_name(name: str, failure: str) -> str:
    return failure if failure.startswith(f"{name} ") else f"{name}: {failure}"


def _failure(values: Mapping[str, Any]) -> str | None:
    """What goes wrong with these settings, in one line; None if nothing does."""
    try:
        with tempfile.TemporaryDirectory(prefix="k2d-rehearsal-") as folder, _quietly(), _draws_untouched():
            _step(values, folder)
    except Exception as error:  # of whatever library the setting is for
        return str(error) if isinstance(error, K2DError) else error_message(error)
    return None


def _step(values: Mapping[str, Any], folder: str) -> None:
    import torch
    from transformers import PrinterCallback, Seq2SeqTrainer
    from transformers.integrations import get_reporting_integration_callbacks

    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.construction import check_evaluation, check_sampling
    from k2d_hf.labelling.teacher import chunk_features

    given = {"report_to": "none", **values, "output_dir": folder}
    args = K2DTrainingArguments(**given)
    for callback in get_reporting_integration_callbacks(args.report_to):
        callback()  # raises where the service has no package here; none is called
    if args.torch_compile:  # raises where torch knows no such backend or mode; nothing is compiled
        backend: Any = args.torch_compile_backend
        torch.compile(torch.nn.Linear(1, 1), backend=backend, mode=args.torch_compile_mode)
    if args.load_best_model_at_end or args.eval_on_start or args.eval_strategy != "no" or args.save_strategy == "best":
        raise K2DError("there are no chunks for evaluation while training; leave out what evaluates")
    check_evaluation(args, None)
    if args.train_sampling_strategy != "group_by_length":  # which asks the collator for lengths
        check_sampling(args, SimpleNamespace(column_names=list(chunk_features())), None)
    apart = {name: value for name, value in APART.items() if name in given}
    small = K2DTrainingArguments(**{"save_strategy": "no", "max_steps": 1, "disable_tqdm": True, **given, **apart})
    chunks = [{"input_features": torch.zeros(8, 20), "labels": torch.tensor([2, 3, 0])}] * 2
    trainer = Seq2SeqTrainer(_tiny_whisper(), small, train_dataset=chunks)
    trainer.remove_callback(PrinterCallback)
    trainer.get_train_dataloader()  # which names its workers' faults before they are started
    trainer.args.dataloader_num_workers, trainer.args.dataloader_persistent_workers = 0, False
    trainer.args.dataloader_prefetch_factor = trainer.args.dataloader_multiprocessing_context = None
    trainer.train()


def _tiny_whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    shape: Any = dict.fromkeys(
        ("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1
    )
    special: Any = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    sizes: Any = {"vocab_size": 16, "num_mel_bins": 8, "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    return WhisperForConditionalGeneration(WhisperConfig(**sizes, **shape, **special, max_source_positions=10))


@contextmanager
def _quietly() -> Iterator[None]:
    """Quiet libraries: what they warn of, training itself will show."""
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            transformers.logging.set_verbosity(before)


@contextmanager
def _draws_untouched() -> Iterator[None]:
    """Random numbers after a `with` are those that there would have been without it."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
