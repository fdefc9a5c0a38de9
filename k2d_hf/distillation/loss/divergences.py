"""How far a student's distribution is from a target: the paper's KL, and what GKD (arXiv 2306.13649) puts in its place.

Each divergence D(p, q), of the target p and the student q, comes with its slope: how D changes with the log-probability
log q of each token. By the student's logits the gradient is then slope - q * sum(slope), whatever the divergence.
Without torch, so that the setting can name them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FORWARD = "forward"


def forward(log_target: Tensor, log_student: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q), as in the paper: the student spreads over all that the target finds likely.

    From log p and log q [N, K], natural logarithms, finite: the divergence of each row [N], and its slope [N, K].
    """
    target = log_target.exp()
    return (target * (log_target - log_student)).sum(-1), -target


def reverse(log_target: Tensor, log_student: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q || p): the student keeps to what the target finds likely, were it only a part of it. Likewise."""
    student = log_student.exp()
    difference = log_student - log_target
    return (student * difference).sum(-1), student * (difference + 1)


def jensen_shannon(log_target: Tensor, log_student: Tensor) -> tuple[Tensor, Tensor]:
    """Half of KL(p || m) and half of KL(q || m), where m is the mean of p and q: bounded by log 2. Likewise."""
    log_mean = log_target.logaddexp(log_student) - math.log(2)
    student = log_student.exp()
    difference = log_student - log_mean
    from_target = log_target.exp() * (log_target - log_mean)
    return (from_target + student * difference).sum(-1) / 2, student * difference / 2


DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    FORWARD: forward,
    "reverse": reverse,
    "jensen-shannon": jensen_shannon,
}
