"""The stages of the method, each in a file of its name: what it reads and writes, how it runs, and its command.

Their names and order are `METHOD` in `pipeline/recipe.py`, beside their settings.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from k2d_hf.errors import K2DError
from k2d_hf.pipeline.recipe import METHOD, Recipe
from k2d_hf.pipeline.stages.stage import Stage


@cache
def stages() -> tuple[Stage, ...]:
    """All stages of the method, in order."""
    modules = (import_module(f"{__name__}.{name}") for name in METHOD)
    return tuple(getattr(module, name.capitalize())() for module, name in zip(modules, METHOD, strict=True))


def planned_stages(recipe: Recipe, from_stage: str | None = None) -> list[Stage]:
    """The stages that a recipe has, in order; K2DError if `from_stage` is none of them."""
    absent = {stage.name: reason for stage in stages() if (reason := stage.reason_absent(recipe)) is not None}
    planned = [stage for stage in stages() if stage.name not in absent]
    names = [stage.name for stage in planned]
    if from_stage is not None and from_stage not in names:
        why = f"; without {absent[from_stage]} there is no such stage" if from_stage in absent else ""
        raise K2DError(f"--from {from_stage}: choose one of {', '.join(names)}{why}")
    return planned
