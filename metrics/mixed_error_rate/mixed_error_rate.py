"""Mixed error rate as a module of `evaluate`: `evaluate.load` finds the metric of the package k2d_hf in it."""

from k2d_hf import MixedErrorRate

__all__ = ["MixedErrorRate"]
