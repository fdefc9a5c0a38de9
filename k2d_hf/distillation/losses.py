"""The loss of K2D's stage 3, over hidden states: cross-entropy and KL without ever holding all logits.

    L = 1/N * sum over chunks s of w_s * sum over tokens [ beta*CE + gamma*T^2*KL(teacher||student)
                                                          + lambda*T^2*KL(auxiliary||student) ]

Only supervised positions come in. The vocabulary is projected block by block, and the gradient of a block is formed
while its logits are there, so memory holds one block of [tokens, vocabulary] and not the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from k2d_hf.errors import K2DError

BLOCK_TOKENS = 256


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss: beta, gamma, lambda and T; the defaults are the paper's (T: Distil-Whisper's)."""

    ce: float = 0.8
    kl: float = 1.0
    auxiliary: float = 0.0
    temperature: float = 2.0


@dataclass(frozen=True)
class Head:
    """A party's last hidden states at the supervised positions, [N, d], and its output embedding, [V, d]."""

    hidden: Tensor
    embedding: Tensor

    def logits(self, block: slice) -> Tensor:
        """Logits of some positions, [block, V], in float32 at least: less is too rough for a softmax over 50,000."""
        logits = self.hidden[block].to(self.embedding.dtype) @ self.embedding.T
        return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class LossSums:
    """Sums over supervised tokens; divide by `tokens`, or by the tokens of an accumulated batch.

    `total` carries the gradient, and the weights of components and chunks; the others are plain and detached, so that
    total = beta * ce + T^2 * (gamma * kl + lambda * auxiliary_kl) where every chunk weighs 1.
    """

    total: Tensor
    ce: Tensor
    kl: Tensor  # KL(teacher || student) at temperature T, without T^2
    auxiliary_kl: Tensor
    agreement: Tensor  # tokens on which student and teacher prefer the same token
    tokens: int


def distillation_loss(
    student: Head,
    labels: Tensor,
    *,
    teacher: Head | None = None,
    auxiliary: Head | None = None,
    weights: LossWeights | None = None,
    token_weights: Tensor | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> LossSums:
    """The loss of the design over supervised tokens, summed.

    Args:
        student: hidden states [N, d] and embedding [V, d]; both may require gradients.
        labels: token ids [N].
        teacher: likewise [N, d'] and [V, d']; needed where `weights.kl` is not 0.
        auxiliary: likewise; needed where `weights.auxiliary` is not 0.
        weights: beta, gamma, lambda, T.
        token_weights: w_s of each token's chunk [N]; ones if None.
        block_tokens: positions whose logits are in memory at once.

    Raises:
        K2DError: if a party that the weights ask for is missing, or vocabularies differ.
    """
    weights = weights or LossWeights()
    for name, party, weight in (("teacher", teacher, weights.kl), ("auxiliary", auxiliary, weights.auxiliary)):
        if weight and party is None:
            raise K2DError(f"the weight of the {name}'s KL is {weight}, but there is no {name}")
        if party is not None:
            check_vocabulary(name, party.embedding.shape[0], student.embedding.shape[0])
    if token_weights is None:
        token_weights = torch.ones_like(labels, dtype=torch.float32)
    hidden, embedding = student.hidden, student.embedding
    if not torch.is_grad_enabled():  # needs_input_grad does not look at the mode, and gradients are most of the work
        hidden, embedding = hidden.detach(), embedding.detach()
    total, ce, kl, auxiliary_kl, agreement = _BlockwiseLoss.apply(
        hidden, embedding, labels, teacher, auxiliary, weights, token_weights, block_tokens
    )
    return LossSums(total, ce, kl, auxiliary_kl, agreement, labels.numel())


def check_vocabulary(party: str, tokens: int, student_tokens: int) -> None:
    """Raise K2DError if two parties of the loss do not share a vocabulary, by its size."""
    if tokens != student_tokens:
        raise K2DError(
            f"{party} has {tokens} tokens, student {student_tokens}: their vocabularies cannot be mixed "
            "(large-v3 has 51866, large-v2 51865, English-only 51864); create the student from the teacher"
        )


class _BlockwiseLoss(torch.autograd.Function):
    """Loss and gradients in one pass over blocks of tokens; backward only scales what forward has formed."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        embedding: Tensor,
        labels: Tensor,
        teacher: Head | None,
        auxiliary: Head | None,
        weights: LossWeights,
        token_weights: Tensor,
        block_tokens: int,
    ) -> tuple[Tensor, ...]:
        wants_hidden, wants_embedding = ctx.needs_input_grad[:2]
        wants_gradient = wants_hidden or wants_embedding
        student = Head(hidden, embedding)
        precise = torch.promote_types(hidden.dtype, torch.float32)
        sums = {name: torch.zeros((), dtype=precise, device=hidden.device) for name in _SUMS}
        hidden_gradient = torch.empty_like(hidden) if wants_hidden else None
        embedding_gradient = torch.zeros_like(embedding, dtype=precise) if wants_embedding else None
        for start in range(0, len(labels), block_tokens):
            block = slice(start, start + block_tokens)
            gradient = _block(
                sums,
                student.logits(block),
                labels[block],
                teacher.logits(block) if teacher is not None else None,
                auxiliary.logits(block) if auxiliary is not None else None,
                weights,
                token_weights[block].to(precise),
                wants_gradient=wants_gradient,
            )
            if gradient is None:
                continue
            gradient = gradient.to(torch.promote_types(hidden.dtype, embedding.dtype))
            if hidden_gradient is not None:
                hidden_gradient[block] = gradient @ embedding.to(gradient.dtype)
            if embedding_gradient is not None:
                embedding_gradient += gradient.T @ hidden[block].to(gradient.dtype)
        ctx.save_for_backward(
            hidden_gradient, embedding_gradient.to(embedding.dtype) if embedding_gradient is not None else None
        )
        outputs = tuple(sums[name] for name in _SUMS)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0]
        hidden_gradient, embedding_gradient = (
            None if saved is None else saved * scale.to(saved.dtype) for saved in ctx.saved_tensors
        )
        return hidden_gradient, embedding_gradient, None, None, None, None, None, None


_SUMS = ("total", "ce", "kl", "auxiliary_kl", "agreement")


def _block(
    sums: dict[str, Tensor],
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    auxiliary_logits: Tensor | None,
    weights: LossWeights,
    token_weights: Tensor,
    *,
    wants_gradient: bool,
) -> Tensor | None:
    """Add one block to the sums; return the gradient of the total by the student's logits, [block, V]."""
    log_probabilities = logits.log_softmax(-1)
    ce = -log_probabilities.gather(-1, labels[:, None]).squeeze(-1)
    total = weights.ce * ce
    gradient: Tensor | None = None
    if wants_gradient:
        gradient = log_probabilities.exp_().mul_(weights.ce)
        gradient.scatter_add_(-1, labels[:, None], gradient.new_full((len(labels), 1), -weights.ce))
    parties = [("kl", teacher_logits, weights.kl), ("auxiliary_kl", auxiliary_logits, weights.auxiliary)]
    present = [(name, party, weight) for name, party, weight in parties if party is not None]
    softened = (logits / weights.temperature).log_softmax(-1) if present else logits
    student_share = 0.0
    for name, party, weight in present:
        target = party.div_(weights.temperature).log_softmax(-1)
        probabilities = target.exp()
        kl = probabilities.mul(target.sub_(softened)).sum(-1)
        sums[name] += kl.sum()
        total = total + weight * weights.temperature**2 * kl
        if gradient is not None and weight:
            gradient.sub_(probabilities.mul_(weight * weights.temperature))
            student_share += weight * weights.temperature
        if name == "kl":
            sums["agreement"] += (party.argmax(-1) == logits.argmax(-1)).sum()
    if gradient is not None and student_share:
        gradient.add_(softened.exp_(), alpha=student_share)
    sums["ce"] += ce.sum()
    sums["total"] += (total * token_weights).sum()
    return None if gradient is None else gradient.mul_(token_weights[:, None])
