"""Teacher, auxiliary and student in the loss: loading and checking them, and the hidden states of each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.modeling_outputs import BaseModelOutput

from k2d_hf.distillation.loss.losses import Head, check_vocabulary
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper, resolve_checkpoint

if TYPE_CHECKING:
    from peft import PeftConfig

Positions = tuple[Tensor, ...]  # rows and columns of some elements, [N] each, as `nonzero(as_tuple=True)` gives them


def base_whisper(model: Any) -> WhisperForConditionalGeneration:
    """The Whisper inside a peft model, a compiled one, or the model itself; K2DError if there is none."""
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    if not isinstance(base, WhisperForConditionalGeneration):
        raise K2DError(f"{type(base).__name__} is not a Whisper with a language-model head")
    return base


def find_processor(*models: Any) -> WhisperProcessor:
    """The processor saved with the first of some models, or checkpoints, that has one; K2DError if none has."""
    reasons = []
    for model in models:
        named = model if isinstance(model, (str, Path)) else getattr(getattr(model, "config", None), "name_or_path", "")
        if not named:
            continue
        try:
            return WhisperProcessor.from_pretrained(resolve_checkpoint(str(named)).path)
        except K2DError as error:
            reasons.append(f" ({error})")
    raise K2DError(f"no processor{''.join(reasons)}: give processing_class, or a model loaded from a checkpoint")


def load_for_loss(
    name: str, model: Any, student: WhisperForConditionalGeneration, weight: float, dtype: torch.dtype | None = None
) -> Any:
    """Teacher or auxiliary, frozen; None if its weight in the loss is 0, K2DError if it is missing or does not fit."""
    if not weight:
        return None
    if model is None:
        setting = "kl_weight" if name == "teacher" else f"{name}_weight"
        raise K2DError(f"{setting} is {weight}: give {name}_model, or set {setting} to 0")
    frozen = load_frozen_model(name, model, mel_bins=student.config.num_mel_bins, whose="student", dtype=dtype)
    check_vocabulary(name, frozen.config.vocab_size, student.config.vocab_size)
    return frozen


def load_frozen_model(
    name: str, model: Any, *, mel_bins: int, whose: str, dtype: torch.dtype | None = None
) -> WhisperForConditionalGeneration:
    """A frozen model, in `dtype` where it is loaded from a checkpoint; K2DError if its mel bins are not `whose`."""
    loaded = isinstance(model, (str, Path))
    frozen: Any = load_whisper(model) if loaded else base_whisper(model)  # which has the adapters of a peft model in it
    if frozen.config.num_mel_bins != mel_bins:
        raise K2DError(
            f"{name} has {frozen.config.num_mel_bins} mel bins, {whose} {mel_bins}: "
            "large-v3 and the others cannot be mixed; create the student from the teacher"
        )
    if loaded and dtype is not None:
        frozen = frozen.to(dtype)  # it learns nothing, so that float32 would only take twice the memory
    return frozen.eval().requires_grad_(False)


def with_adapters(student: WhisperForConditionalGeneration, config: PeftConfig, *, freeze_encoder: bool) -> nn.Module:
    """The student with adapters; none in the encoder where that is frozen, unless the config says where."""
    from peft import get_peft_model

    if freeze_encoder and getattr(config, "exclude_modules", "") is None:  # not every method has the field
        excluding: Any = copy.deepcopy(config)
        excluding.exclude_modules = r"model\.encoder\..*"
        config = excluding
    return get_peft_model(student, config)


def output_embedding(model: WhisperForConditionalGeneration) -> Tensor:
    """The matrix [V, d] that turns hidden states into logits; K2DError if it is none, as when peft adapts it."""
    head = model.proj_out
    plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward  # FSDP makes a class of its own
    if not plain or head.bias is not None:
        raise K2DError(
            "the output layer proj_out must stay a plain linear layer: leave it out of peft's target_modules"
        )
    return head.weight


def check_encoders(student: WhisperForConditionalGeneration, teacher: Any, *, frozen: bool) -> None:
    """Raise K2DError where the states of the two encoders cannot be brought nearer to each other."""
    if frozen:
        raise K2DError("encoder_weight: the student's encoder is frozen; set freeze_encoder to false")
    widths = student.config.d_model, teacher.config.d_model
    if widths[0] != widths[1]:
        raise K2DError(f"encoder_weight: the student's states have {widths[0]} dimensions, the teacher's {widths[1]}")


def is_frozen(module: nn.Module) -> bool:
    """Whether no parameter of `module` is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


@torch.no_grad()
def same_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same tensors, compared in the coarser of their number formats."""
    tensors, others = module.state_dict(), other.state_dict()
    return tensors.keys() == others.keys() and all(_equal(tensor, others[name]) for name, tensor in tensors.items())


def _equal(tensor: Tensor, other: Tensor) -> bool:
    coarse = min(tensor.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(tensor.to(coarse), other.to(tensor.device, coarse))  # also False for other shapes


def forward_inputs(
    base: WhisperForConditionalGeneration, batch: dict[str, Any], encoder_states: Tensor | None
) -> dict[str, Any]:
    """What a Whisper's `forward` takes of a batch; features only where the encoder has not run already."""
    given = {"decoder_input_ids": batch["decoder_input_ids"], "use_cache": False}
    if encoder_states is not None:
        return {**given, "encoder_outputs": BaseModelOutput(last_hidden_state=encoder_states.to(base.dtype))}
    features = batch["input_features"]  # which augmentation masks in place, and the teacher takes unmasked
    return {**given, "input_features": features.clone() if base.config.apply_spec_augment else features}


def clean_inputs(batch: dict[str, Tensor], encoder_states: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
    """What teacher and auxiliary take of a batch, and states that they share: of clean audio, if it was disturbed."""
    if "clean_states" in batch:
        return batch, batch["clean_states"]
    if "clean_features" in batch:
        return {**batch, "input_features": batch["clean_features"]}, None
    return batch, encoder_states


def student_hidden(
    model: nn.Module,
    base: WhisperForConditionalGeneration,
    batch: dict[str, Any],
    encoder_states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Last hidden states, [B, L, d], of a student as it is wrapped for training, and its encoder's, [B, frames, d]."""
    whisper: Any = base
    head, whisper.proj_out = whisper.proj_out, nn.Identity()  # the loss projects the states block by block
    try:
        outputs = model(**forward_inputs(base, batch, encoder_states))  # whose hooks are those of DDP and peft
    finally:
        whisper.proj_out = head
    return outputs.logits, outputs.encoder_last_hidden_state


@torch.no_grad()
def encode(
    model: WhisperForConditionalGeneration, input_features: Tensor, *, run: Callable[..., Any] | None = None
) -> Tensor:
    """Encoder states [B, frames, d] of features [B, mel bins, 2 * frames], without gradient or dropout.

    A CPU takes one chunk at a time: it has nothing to gain from a batch, and the activations of one stay nearer.
    `run` is what runs the encoder, given it and some features; by default it is called.
    """
    encoder = model.model.encoder
    was_training = encoder.training
    encoder.eval()
    features = input_features.to(encoder.conv1.weight.dtype)
    parts = features.split(1) if features.device.type == "cpu" else [features]
    run = run or type(encoder).__call__
    states = torch.cat([run(encoder, part).last_hidden_state for part in parts])
    encoder.train(was_training)
    return states


def teacher_head(
    model: WhisperForConditionalGeneration,
    batch: dict[str, Any],
    supervised: Positions,
    encoder_states: Tensor | None = None,
) -> Head:
    """A frozen model in the loss, for the same decoder inputs as the student; its encoder may have run already."""
    if encoder_states is None:
        encoder_states = encode(model, batch["input_features"])
    hidden = decode(model, encoder_states, batch["decoder_input_ids"])
    return Head(hidden[supervised], output_embedding(model))


@torch.no_grad()
def decode(model: WhisperForConditionalGeneration, encoder_states: Tensor, decoder_input_ids: Tensor) -> Tensor:
    """Last hidden states [B, L, d] of a frozen model."""
    states = encoder_states.to(model.model.decoder.embed_tokens.weight.dtype)
    outputs = model.model.decoder(input_ids=decoder_input_ids, encoder_hidden_states=states, use_cache=False)
    return outputs.last_hidden_state
