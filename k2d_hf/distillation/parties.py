"""Teacher, auxiliary and student as parties of the loss: who shares whose encoder, and the hidden states of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from k2d_hf.errors import K2DError


def base_whisper(model: Any) -> WhisperForConditionalGeneration:
    """The Whisper inside a peft model, or the model itself.

    Raises:
        K2DError: if there is no Whisper inside.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    if not isinstance(base, WhisperForConditionalGeneration):
        raise K2DError(f"{type(base).__name__} is not a Whisper with a language-model head")
    return base


def output_embedding(model: WhisperForConditionalGeneration) -> Tensor:
    """The matrix [V, d] that turns hidden states into logits.

    Raises:
        K2DError: if the output layer is not a plain matrix, as when peft adapts it.
    """
    head = model.proj_out
    if type(head) is not nn.Linear or head.bias is not None:
        raise K2DError(
            "the output layer proj_out must stay a plain linear layer: leave it out of peft's target_modules"
        )
    return head.weight


def is_frozen(module: nn.Module) -> bool:
    """Whether no parameter of `module` is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


@torch.no_grad()
def same_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same tensors, compared in the coarser of their number formats."""
    tensors, others = module.state_dict(), other.state_dict()
    if tensors.keys() != others.keys():
        return False
    for name, tensor in tensors.items():
        theirs = others[name].to(tensor.device)
        if tensor.shape != theirs.shape:
            return False
        coarse = theirs.dtype if theirs.element_size() < tensor.element_size() else tensor.dtype
        if not torch.equal(tensor.to(coarse), theirs.to(coarse)):
            return False
    return True


@contextmanager
def hidden_states_for_logits(model: Any) -> Iterator[None]:
    """Let `model.forward` return the decoder's hidden states where it returns logits.

    The loss projects them block by block. Going through `forward` keeps the hooks of DDP, FSDP and peft.
    """
    head = model.proj_out
    model.proj_out = nn.Identity()
    try:
        yield
    finally:
        model.proj_out = head


def student_hidden(
    model: nn.Module,
    base: WhisperForConditionalGeneration,
    batch: dict[str, Any],
    encoder_states: Tensor | None,
) -> Tensor:
    """The student's last hidden states, [B, L, d].

    Args:
        model: the student as it is wrapped for training.
        base: the Whisper inside it.
        batch: `input_features` and `decoder_input_ids`.
        encoder_states: [B, frames, d] if the encoder has run already.
    """
    with hidden_states_for_logits(base):
        if encoder_states is not None:
            outputs = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoder_states.to(base.dtype)),
                decoder_input_ids=batch["decoder_input_ids"],
                use_cache=False,
            )
        else:
            outputs = model(
                input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"], use_cache=False
            )
    return outputs.logits


@torch.no_grad()
def encode(model: WhisperForConditionalGeneration, input_features: Tensor) -> Tensor:
    """Encoder states [B, frames, d], without gradient or dropout."""
    encoder = model.model.encoder
    was_training = encoder.training
    encoder.eval()
    states = encoder(input_features.to(encoder.conv1.weight.dtype)).last_hidden_state
    encoder.train(was_training)
    return states


@torch.no_grad()
def decode(model: WhisperForConditionalGeneration, encoder_states: Tensor, decoder_input_ids: Tensor) -> Tensor:
    """Last hidden states [B, L, d] of a model that only helps."""
    states = encoder_states.to(model.model.decoder.embed_tokens.weight.dtype)
    outputs = model.model.decoder(input_ids=decoder_input_ids, encoder_hidden_states=states, use_cache=False)
    return outputs.last_hidden_state
