"""The loss of K2D's stage 3, over hidden states: cross-entropy and KL without ever holding all logits.

    L = 1/N * sum over chunks s of w_s * sum over tokens [ beta*CE + gamma*T^2*KL(teacher||student)
                                                          + lambda*T^2*KL(auxiliary||student) ]

Only supervised positions come in. The vocabulary is projected block by block, and the gradient of a block is formed
while its logits are there, so memory holds one block of [tokens, vocabulary] and not the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from k2d_hf.distillation.loss.blockwise import BlockwiseLoss, Head, LossWeights, StoredTargets, Targets
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import IGNORED

BLOCK_TOKENS = 128


@dataclass(frozen=True)
class LossSums:
    """Sums over supervised tokens; divide by `tokens`, or by the tokens of an accumulated batch.

    `total` carries the gradient, and the weights of components, chunks and tokens; the others are plain and detached,
    so that total = beta * ce + T^2 * (gamma * kl + lambda * auxiliary_kl), and what `with_encoder_distance` adds, where
    every chunk and token weighs 1.
    """

    total: Tensor
    ce: Tensor
    kl: Tensor  # KL(teacher || student), or the other divergence, at temperature T, without T^2
    auxiliary_kl: Tensor
    agreement: Tensor  # tokens on which student and teacher prefer the same token
    encoder_mse: Tensor  # the chunk's, for each of its tokens; 0 where it has no part
    tokens: int


def distillation_loss(
    student: Head,
    labels: Tensor,
    *,
    teacher: Targets | None = None,
    auxiliary: Targets | None = None,
    weights: LossWeights | None = None,
    token_weights: Tensor | None = None,
    block_tokens: int = BLOCK_TOKENS,
    projection_dtype: torch.dtype | None = None,
) -> LossSums:
    """The loss of the design over supervised tokens, summed.

    Args:
        student: hidden states [N, d] and embedding [V, d]; both may require gradients.
        labels: token ids [N].
        teacher: likewise [N, d'] and [V, d'], or its stored targets, with which the KL is a lower bound; needed where
            `weights.kl` is not 0.
        auxiliary: likewise; needed where `weights.auxiliary` is not 0.
        weights: beta, gamma, lambda, T, and the divergence that takes the KL's place.
        token_weights: of each token [N], w_s of its chunk among them; ones if None.
        block_tokens: positions whose logits are in memory at once.
        projection_dtype: number format of the products with the embedding; that of hidden states and embedding if
            None. What follows is in float32 at least.

    Raises:
        K2DError: if targets that the weights ask for are missing, or vocabularies differ.
    """
    weights = weights or LossWeights()
    given = (("kl", "teacher", teacher, weights.kl), ("auxiliary_kl", "auxiliary", auxiliary, weights.auxiliary))
    for _, name, targets, weight in given:
        if weight and targets is None:
            raise K2DError(f"the weight of the {name}'s KL is {weight}, but there is no {name}")
        if isinstance(targets, Head):
            check_vocabulary(name, targets.embedding.shape[0], student.embedding.shape[0])
    if token_weights is None:
        token_weights = torch.ones_like(labels, dtype=torch.float32)
    hidden, embedding = student.hidden, student.embedding
    if not torch.is_grad_enabled():  # needs_input_grad ignores the mode, and gradients are most of the work
        hidden, embedding = hidden.detach(), embedding.detach()
    terms = tuple((term, targets, weight) for term, _, targets, weight in given if targets is not None)
    total, ce, kl, auxiliary_kl, agreement = BlockwiseLoss.apply(
        hidden, embedding, labels, terms, weights, token_weights, block_tokens, projection_dtype
    )
    return LossSums(total, ce, kl, auxiliary_kl, agreement, torch.zeros_like(ce), labels.numel())


def supervised_positions(labels: Tensor) -> tuple[Tensor, ...]:
    """Rows and columns of the supervised tokens among labels [B, L], [N] each."""
    return (labels != IGNORED).nonzero(as_tuple=True)


def weights_at(batch: dict[str, Tensor], positions: tuple[Tensor, ...]) -> Tensor | None:
    """Weights of the tokens at positions [N] of a batch: its chunk's times its own; None where all are 1."""
    rows, _ = positions
    weights = [batch["chunk_weights"][rows]] if "chunk_weights" in batch else []
    weights += [batch["token_weights"][positions]] if "token_weights" in batch else []
    return torch.stack(weights).prod(dim=0) if weights else None


def stored_targets(
    name: str, batch: dict[str, Tensor], positions: tuple[Tensor, ...], embedding: Tensor | None
) -> Targets:
    """The soft targets of a model in a batch at positions [N]; `embedding` [V, d] makes hidden states logits."""
    if f"{name}_hidden" in batch:
        assert embedding is not None
        return Head(batch[f"{name}_hidden"][positions].to(embedding.dtype), embedding)
    return StoredTargets(batch[f"{name}_top_ids"][positions], batch[f"{name}_top_logprobs"][positions])


def with_encoder_distance(
    sums: LossSums, states: Tensor, teacher_states: Tensor, labels: Tensor, *, weight: float, weights: Tensor | None
) -> LossSums:
    """The sums with the distance between two encoders added, to teach one that has lost layers.

    The mean squared distance of a chunk, between states [B, frames, d] each, counts once for each of its tokens, as the
    other terms do, times the chunk's w_s in `weights` [B], if any. Not of the paper, whose students keep the whole
    encoder; hints of this kind are those of FitNets (Romero et al., 2015).
    """
    distance = (states.float() - teacher_states.float()).square().mean(dim=(1, 2))  # [B]
    each = distance * (labels != IGNORED).sum(dim=1)
    added = each if weights is None else each * weights
    return replace(sums, total=sums.total + weight * added.sum(), encoder_mse=each.detach().sum())


def check_vocabulary(model: str, tokens: int, student_tokens: int) -> None:
    """Raise K2DError if a model and the student do not share a vocabulary, by its size."""
    if tokens != student_tokens:
        raise K2DError(
            f"{model} has {tokens} tokens, student {student_tokens}: their vocabularies cannot be mixed "
            "(large-v3 has 51866, large-v2 51865, English-only 51864); create the student from the teacher"
        )
