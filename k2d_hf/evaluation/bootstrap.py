"""Intervals by the bootstrap: recordings drawn again and again, each time the rate over all of their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95
_CELLS = 1 << 22  # drawn at once: 15,000 recordings a sample would fill memory otherwise


def resampled_rates(
    errors: np.ndarray, lengths: Sequence[float], *, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """Error rates over recordings drawn with replacement (Bisani and Ney, 2004).

    A rate is the sum of the errors over the sum of the reference tokens, so that long recordings count for more. All
    systems are measured on the same draws: what is computed from two of them is a paired comparison.

    Args:
        errors: S + D + I, [systems, recordings].
        lengths: reference tokens, [recordings]; none may be 0.
        samples: number of draws.
        seed: of the random numbers; the same gives the same rates.

    Returns:
        Rates [samples, systems].
    """
    counted = np.asarray(errors, dtype=float)
    tokens = np.asarray(lengths, dtype=float)
    recordings = len(tokens)
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // recordings)
    parts = []
    for at in range(0, samples, step):
        drawn = generator.integers(recordings, size=(min(step, samples - at), recordings))
        parts.append(counted[:, drawn].sum(axis=2).T / tokens[drawn].sum(axis=1)[:, None])
    return np.concatenate(parts)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of some values, by percentiles."""
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)
