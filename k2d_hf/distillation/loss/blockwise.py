"""The arithmetic of the loss: blocks of logits in, sums out, with gradients formed while the logits are there.

Two sizes of block: the vocabulary is projected for many tokens at once, as matrix products want it, and what follows
is done on few rows at a time, as many as a CPU's cache holds, in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from k2d_hf.distillation.loss.divergences import DIVERGENCES, FORWARD

SUMS = ("total", "ce", "kl", "auxiliary_kl", "agreement")
CACHED_LOGITS = 1 << 20  # of one row block on a CPU: 4 MB in float32, what the second-level caches of two cores hold
LEAST = 1e-30  # of a probability, so that its logarithm is finite


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss: beta, gamma, lambda and T, and which divergence its KL terms are.

    The defaults are the paper's; T, of which it says nothing, is Distil-Whisper's.
    """

    ce: float = 0.8
    kl: float = 1.0
    auxiliary: float = 0.0
    temperature: float = 2.0
    divergence: str = FORWARD  # one of `divergences.DIVERGENCES`


@dataclass(frozen=True)
class Head:
    """A model's last hidden states at the supervised positions, [N, d], and its output embedding, [V, d]."""

    hidden: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class StoredTargets:
    """A model's k most likely tokens at the supervised positions, most likely first, as stored."""

    ids: Tensor  # [N, k], distinct in a row
    logprobs: Tensor  # at the temperature of the loss, [N, k]; what they leave is one bucket

    def __getitem__(self, rows: slice) -> StoredTargets:
        return StoredTargets(self.ids[rows], self.logprobs[rows])


Targets = Head | StoredTargets  # of a KL term: the output of a model, or what was stored of it
BlockTerm = tuple[str, Tensor | StoredTargets, float]  # a KL term in a block: name, logits or targets, weight


class BlockwiseLoss(torch.autograd.Function):
    """Loss and gradients in one pass over blocks of tokens; backward only scales what forward has formed."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        embedding: Tensor,
        labels: Tensor,
        terms: tuple[tuple[str, Targets, float], ...],
        weights: LossWeights,
        token_weights: Tensor,
        block_tokens: int,
        projection_dtype: torch.dtype | None,
    ) -> tuple[Tensor, ...]:
        """Sums in the order of `SUMS`; `terms` are name, targets and weight of each KL."""
        wants_hidden, wants_embedding = ctx.needs_input_grad[:2]
        precise = torch.promote_types(hidden.dtype, torch.float32)
        student = _Projection(Head(hidden, embedding), precise, block_tokens, projection_dtype)
        heads = {
            name: _Projection(targets, precise, block_tokens, projection_dtype)
            for name, targets, _ in terms
            if isinstance(targets, Head)
        }
        rows = _Rows(
            weights, student.buffer, [term[0] for term in terms], wants_gradient=wants_hidden or wants_embedding
        )
        hidden_gradient = torch.empty_like(hidden) if wants_hidden else None
        embedding_gradient = torch.zeros_like(embedding, dtype=precise) if wants_embedding else None
        for start in range(0, len(labels), block_tokens):
            block = slice(start, min(start + block_tokens, len(labels)))
            logits = student.logits(block)
            of_block: list[BlockTerm] = [
                (name, targets[block] if isinstance(targets, StoredTargets) else heads[name].logits(block), weight)
                for name, targets, weight in terms
            ]
            rows.add_block(logits, labels[block], of_block, token_weights[block].to(precise))
            if not rows.wants_gradient:
                continue
            gradient = logits.to(student.hidden.dtype)  # add_block has left the gradient there
            if hidden_gradient is not None:
                hidden_gradient[block] = gradient @ student.embedding
            if embedding_gradient is not None:
                if embedding_gradient.dtype == gradient.dtype:
                    embedding_gradient.addmm_(gradient.T, student.hidden[block])
                else:
                    embedding_gradient += gradient.T @ student.hidden[block]
        ctx.save_for_backward(
            hidden_gradient, None if embedding_gradient is None else embedding_gradient.to(embedding.dtype)
        )
        outputs = tuple(rows.sums.values())
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by hidden states and embedding."""
        scaled = (None if saved is None else saved * gradients[0].to(saved.dtype) for saved in ctx.saved_tensors)
        return *scaled, None, None, None, None, None, None


class _Projection:
    """A model's logits, block by block, in one buffer of [block, V] that every block overwrites."""

    def __init__(self, head: Head, precise: torch.dtype, block_tokens: int, dtype: torch.dtype | None) -> None:
        dtype = dtype or torch.promote_types(head.hidden.dtype, head.embedding.dtype)
        self.hidden, self.embedding = head.hidden.detach().to(dtype), head.embedding.detach().to(dtype)
        # float32 at least: less is too rough for a softmax over 50,000 tokens
        tokens, vocabulary = min(block_tokens, len(head.hidden)), len(head.embedding)
        self.buffer = torch.empty(tokens, vocabulary, dtype=precise, device=head.hidden.device)

    def logits(self, block: slice) -> Tensor:
        """Logits [block, V] of some positions; they may be overwritten."""
        logits = self.buffer[: block.stop - block.start]
        if logits.dtype == self.hidden.dtype:
            return torch.mm(self.hidden[block], self.embedding.T, out=logits)
        return logits.copy_(self.hidden[block] @ self.embedding.T)


class _Rows:
    """What is done with logits once they are there, on as many rows at a time as a CPU's cache holds."""

    def __init__(self, weights: LossWeights, like: Tensor, terms: list[str], *, wants_gradient: bool) -> None:
        self.weights, self.wants_gradient = weights, wants_gradient
        self.sums = {name: like.new_zeros(()) for name in SUMS}
        tokens, vocabulary = like.shape
        rows = max(1, CACHED_LOGITS // vocabulary) if like.device.type == "cpu" else tokens
        self.rows = max(1, min(rows, tokens))
        self.softened = like.new_empty(self.rows, vocabulary)
        self.scratch = {name: torch.empty_like(self.softened) for name in terms}

    def add_block(self, logits: Tensor, labels: Tensor, terms: list[BlockTerm], token_weights: Tensor) -> None:
        """Add a block to the sums, and overwrite its logits with the gradient of the total by them."""
        for start in range(0, len(labels), self.rows):
            some = slice(start, start + self.rows)
            of_rows = [(name, targets[some], weight) for name, targets, weight in terms]
            self._add(logits[some], labels[some], of_rows, token_weights[some])

    def _add(self, logits: Tensor, labels: Tensor, terms: list[BlockTerm], token_weights: Tensor) -> None:
        beta, temperature, count = self.weights.ce, self.weights.temperature, len(labels)
        scaled = logits.sub_(logits.amax(-1, keepdim=True)).div_(temperature)  # at most 0: nothing overflows
        of_label = temperature * scaled.gather(-1, labels[:, None]).squeeze(-1)
        gradients: list[tuple[Tensor, Tensor]] = []  # a factor of each row, and what it multiplies
        total: Tensor | float = 0.0
        if terms:
            softened = torch.exp(scaled, out=self.softened[:count])
            mass = softened.sum(-1)
            share = torch.zeros_like(mass)  # of the student's softened probabilities in the gradient
            for name, targets, weight in terms:
                pull = weight * temperature * token_weights
                scratch = self.scratch[name][:count]
                if isinstance(targets, StoredTargets):
                    kl, pulled = _bucketed(scaled, softened, mass, targets, self.weights.divergence, scratch)
                    gradients.append((pull, pulled))
                    favourite = targets.ids[:, 0].long()
                elif self.weights.divergence != FORWARD:
                    favourite = targets.argmax(-1)
                    log_target = targets.div_(temperature).log_softmax(-1)
                    kl, slope = DIVERGENCES[self.weights.divergence](log_target, scaled - mass.log()[:, None])
                    gradients.append((pull, slope.addcmul_(softened, -(slope.sum(-1) / mass)[:, None])))
                else:
                    kl, target, target_mass, favourite = _full(scaled, mass, targets, temperature, scratch)
                    share += pull / mass
                    gradients.append((-pull / target_mass, target))
                total = total + weight * temperature**2 * kl
                self.sums[name] += kl.sum()
                if name == "kl":
                    preferred = scaled.gather(-1, favourite[:, None]) == 0  # the largest of a row is 0
                    self.sums["agreement"] += preferred.sum()
            gradients.append((share, softened))
        exponentials = scaled.mul_(temperature).exp_()
        total_mass = exponentials.sum(-1)
        ce = total_mass.log() - of_label
        self.sums["ce"] += ce.sum()
        self.sums["total"] += ((total + beta * ce) * token_weights).sum()
        if not self.wants_gradient:
            return
        gradient = exponentials.mul_((beta * token_weights / total_mass)[:, None])
        for factor, values in gradients:
            gradient.addcmul_(values, factor[:, None])
        gradient.scatter_add_(-1, labels[:, None], (-beta * token_weights)[:, None])


def _full(
    scaled: Tensor, mass: Tensor, logits: Tensor, temperature: float, scratch: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """KL from a model's logits, its exponentials (in their place), their sum, and the token it prefers."""
    largest, favourite = logits.max(-1, keepdim=True)
    target_scaled = logits.sub_(largest).div_(temperature)
    difference = torch.sub(target_scaled, scaled, out=scratch)
    target = target_scaled.exp_()
    target_mass = target.sum(-1)
    difference.add_((mass / target_mass).log()[:, None])
    kl = difference.mul_(target).sum(-1) / target_mass
    return kl, target, target_mass, favourite.squeeze(-1)


def _bucketed(
    scaled: Tensor, softened: Tensor, mass: Tensor, targets: StoredTargets, divergence: str, scratch: Tensor
) -> tuple[Tensor, Tensor]:
    """Divergence between two distributions over k tokens and one bucket for the rest: at most that of the whole ones.

    What a slope of the bucket is, its tokens share by their probability. The gradient by the student's logits over T,
    here in `scratch`, is q_i - p_i at the k tokens and q_i * (1 - p_tail / q_tail) elsewhere where it is the KL.
    """
    columns = targets.ids.long()
    top = softened.gather(-1, columns)
    softened.scatter_(-1, columns, 0.0)
    rest = softened.sum(-1, keepdim=True).clamp(min=LEAST)  # summed and not subtracted: it may be small beside the mass
    logprobs = targets.logprobs.to(scaled.dtype)
    stored = logprobs.exp().sum(-1, keepdim=True)
    logprobs = logprobs - stored.clamp(min=1.0).log()  # rounding may have stored a little more than 1
    tail = (1 - stored).clamp(min=0.0)
    log_target = torch.cat([logprobs, tail.log()], -1).clamp(min=math.log(LEAST))
    log_student = torch.cat([scaled.gather(-1, columns), rest.log()], -1) - mass.log()[:, None]
    value, slope = DIVERGENCES[divergence](log_target, log_student)
    total = slope.sum(-1, keepdim=True) / mass[:, None]
    pulled = torch.mul(softened, slope[:, -1:] / rest - total, out=scratch)
    pulled.scatter_(-1, columns, slope[:, :-1] - total * top)
    softened.scatter_(-1, columns, top)
    return value, pulled
