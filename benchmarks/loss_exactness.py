"""How far the blockwise loss, in float32, is from the plain formula in float64: value and gradients.

Shapes are those of a step of Whisper base: 480 supervised tokens, width 512, 51,865 tokens of vocabulary.

    python benchmarks/loss_exactness.py
"""

from __future__ import annotations

import argparse

import measure
import torch
from torch import Tensor

from k2d_hf.distillation.loss.losses import Head, LossWeights, distillation_loss

TOKENS, WIDTH, VOCABULARY = 480, 512, 51865


def plain(hidden: Tensor, embedding: Tensor, teacher: Tensor, labels: Tensor, weights: LossWeights) -> Tensor:
    """The formula over all logits, which the student's hidden states and embedding give."""
    return of_logits(hidden @ embedding.T, teacher, labels, weights)


def of_logits(logits: Tensor, teacher: Tensor, labels: Tensor, weights: LossWeights) -> Tensor:
    """The formula over all logits, [N, V] of student and teacher."""
    t = weights.temperature
    ce = -logits.log_softmax(-1).gather(-1, labels[:, None]).sum()
    target, predicted = (teacher / t).log_softmax(-1), (logits / t).log_softmax(-1)
    return weights.ce * ce + weights.kl * t**2 * (target.exp() * (target - predicted)).sum()


def distances(
    device: str = "cpu", *, tokens: int = TOKENS, width: int = WIDTH, vocabulary: int = VOCABULARY
) -> dict[str, float]:
    """Of one random case, on a device: how far value and gradients are from the formula, relative."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    hidden, embedding = normal(tokens, width), 0.1 * normal(vocabulary, width)
    helping = Head(normal(tokens, width), 0.1 * normal(vocabulary, width))
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator).to(device)
    ours = [hidden.clone().requires_grad_(), embedding.clone().requires_grad_()]
    total = distillation_loss(Head(*ours), labels, teacher=helping).total
    gradients = torch.autograd.grad(total, ours)
    exact = [hidden.double().requires_grad_(), embedding.double().requires_grad_()]
    expected = plain(*exact, helping.hidden.double() @ helping.embedding.double().T, labels, LossWeights())
    references = torch.autograd.grad(expected, exact)

    def relative(value: Tensor, reference: Tensor) -> float:
        return float(f"{float((value.double() - reference).norm() / reference.norm()):.2g}")

    return {
        "loss": relative(total.detach(), expected.detach()),
        "gradient_by_hidden_states": relative(gradients[0], references[0]),
        "gradient_by_embedding": relative(gradients[1], references[1]),
    }


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    device = parser.parse_args().device
    measure.report("loss_exactness", {"device": device, **distances(device)}, packages=("torch",))


if __name__ == "__main__":
    main()
