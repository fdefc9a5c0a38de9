"""A share of the weights that a student began with, in what training made of it (WiSE-FT, Wortsman et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from k2d_hf.errors import K2DError

_GROWING, _TURNING = ("lora_B", "lora_embedding_B"), ("lora_A", "lora_embedding_A")  # what LoRA multiplies
_MAGNITUDE = "lora_magnitude_vector"  # of DoRA


class InitialWeights:
    """The weights that a student begins with, of those that training will change, on the CPU.

    An adapter (LoRA) adds B A to a weight and begins with B = 0: a share of the beginning is one that is taken off B.

    Raises:
        K2DError: for adapters of which that is not true.
    """

    def __init__(self, student: nn.Module) -> None:
        check_adapters_scale(student)
        for name, weights in _trained(student):
            if _is_part(name, _GROWING) and weights.count_nonzero():
                raise K2DError("initial_share: adapters must begin as nothing; leave init_lora_weights out")
        self.weights = {
            name: weights.detach().to("cpu", copy=True)
            for name, weights in _trained(student)
            if not _is_part(name, (*_GROWING, *_TURNING))
        }

    @torch.no_grad()
    def mix_into(self, student: nn.Module, share: float) -> None:
        """Make the student's weights `share` times these and `1 - share` times its own."""
        for name, weights in _trained(student):
            if _is_part(name, _GROWING):
                weights.mul_(1 - share)
            elif not _is_part(name, _TURNING):
                weights.lerp_(self.weights[name].to(weights.device), share)


def check_adapters_scale(student: nn.Module) -> None:
    """Raise K2DError for adapters that change a weight by more than a product that can be scaled."""
    if any(_is_part(name, (_MAGNITUDE,)) for name, _ in student.named_parameters()):
        raise K2DError("initial_share: not with use_dora, whose adapters do not scale; leave one of the two out")


def _trained(student: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, weights) for name, weights in student.named_parameters() if weights.requires_grad)


def _is_part(name: str, parts: tuple[str, ...]) -> bool:
    return not set(parts).isdisjoint(name.split("."))
