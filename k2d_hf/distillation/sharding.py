"""A student sharded over processes (FSDP): its loss (K2D, stage 3) is formed where its weights are complete.

That is in its forward pass, while each layer runs: the output layer forms the loss in the place of logits, and a frozen
encoder keeps its states for the teacher. Teacher and auxiliary are not sharded: they are frozen, so each process holds
them complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from accelerate.utils import patch_environment
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutput

from k2d_hf.distillation.loss.losses import LossSums
from k2d_hf.distillation.models import base_whisper, encode, forward_inputs, with_adapters
from k2d_hf.distillation.settings import keeps_teacher
from k2d_hf.errors import K2DError

logger = logging.getLogger(__name__)


def sums_in_forward(
    model: nn.Module,
    base: WhisperForConditionalGeneration,
    batch: dict[str, Tensor],
    sums_of: Callable[[Tensor, Tensor | None], LossSums],
    *,
    frozen_encoder: bool,
) -> LossSums:
    """The sums of the loss, formed within `model.forward`, where FSDP has gathered the weights.

    A frozen encoder runs there as well, and is not left out of the sharding: it is most of the student's weights.
    `sums_of` gives the sums from the last hidden states [B, L, d], and the encoder's [B, frames, d] where it is frozen.
    """
    encoder: Any = base.model.encoder
    states = [batch["encoder_states"]] if "encoder_states" in batch else []
    formed: list[LossSums] = []

    def run_encoder(input_features: Tensor, **_: Any) -> BaseModelOutput:
        states.append(encode(base, input_features, run=type(encoder).forward))
        return BaseModelOutput(last_hidden_state=states[0])

    def form_loss(hidden: Tensor) -> Tensor:
        formed.append(sums_of(hidden, states[0] if states else None))
        return formed[0].total

    given = forward_inputs(base, batch, batch.get("encoder_states"))
    with _forward(base.proj_out, form_loss), _forward(encoder, run_encoder if frozen_encoder else encoder.forward):
        total = model(**given).logits
    return replace(formed[0], total=total)  # what came out of the wrapper, whose hooks gather the gradients


@contextmanager
def _forward(module: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else when it is called; its hooks, which gather its weights, run all the same."""
    own = module.__dict__.get("forward")
    module.forward = function
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.forward = own


def complete_loading() -> AbstractContextManager[None]:
    """Load models completely on every process, though FSDP asks for the first alone: nothing would fill a teacher."""
    return patch_environment(fsdp_cpu_ram_efficient_loading="false")


def check_loaded(**models: nn.Module | None) -> None:
    """Raise K2DError if a model has weights that were left to another process to load."""
    for name, model in models.items():
        if model is not None and any(parameter.is_meta for parameter in model.parameters()):
            raise K2DError(
                f"the {name} was loaded on the first process alone: give its checkpoint instead of the model, or set "
                "cpu_ram_efficient_loading in fsdp_config to false"
            )


def check_sharding(args: Any, accelerator: Any, *, sharded: bool) -> None:
    """Let a sharded student return its loss as it is formed, and not in bf16, which has three digits.

    Raises:
        K2DError: for FSDP 1, DeepSpeed ZeRO-3, or a loss that takes the encoder's states.
    """
    if is_deepspeed_zero3_enabled():
        raise K2DError("ZeRO-3 shards the embedding that the loss needs whole: use FSDP, DDP or ZeRO-2")
    if not sharded:
        if args.fsdp:
            logger.warning("fsdp is left out of account: accelerate shards on GPUs and their like, not on CPUs")
        return
    alone = next((name for name in ("augment", "initial_share") if getattr(args, name)), None)
    if setting := keeps_teacher(vars(args)) or alone:
        raise K2DError(f"{setting}: not for a student that is sharded (FSDP); train it by DDP")
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise K2DError(f"FSDP version {plugin.fsdp_version} is not supported: set version in fsdp_config to 2")
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)


def gather_student(model: Any, accelerator: Any) -> Any:
    """A sharded student as a plain model, with its adapters, on the first process, None on the others; else itself."""
    if getattr(accelerator.state, "fsdp_plugin", None) is None:
        return model
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return None
    sharded = base_whisper(accelerator.unwrap_model(model))
    plain: Any = WhisperForConditionalGeneration(sharded.config)
    plain.generation_config = sharded.generation_config
    if hasattr(model, "peft_config"):
        plain = with_adapters(plain, model.active_peft_config, freeze_encoder=False)
    plain.load_state_dict(weights)
    return plain.eval()
