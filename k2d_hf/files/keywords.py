"""Settings as keyword arguments: a public function takes those of its stage whole, its callers name them one by one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import did_you_mean, with_arguments

P = ParamSpec("P")
R = TypeVar("R")


def takes(cls: type, *, without: Collection[str] = ()) -> Callable[[Callable[P, R]], Callable[..., R]]:
    """Have a function with a parameter `settings`, a dataclass, called with its fields as keywords, without some.

    Its caller may also give `settings` whole, and with it keywords that are to be otherwise. `help()` and
    `inspect.signature` show the fields with their defaults, and the docstring what each does. The function, which may
    be a constructor, raises K2DError for a value that a setting may not have, TypeError for a keyword that is none.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in without}

    def decorate(function: Callable[P, R]) -> Callable[..., R]:
        own = inspect.signature(function).parameters

        @functools.wraps(function)
        def called(*args: Any, settings: Any = None, **given: Any) -> R:
            chosen = {name: given.pop(name) for name in fields if name in given}
            for name in given:
                if name not in own:
                    near = did_you_mean(name, [*own, *fields])
                    raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {name!r}{near}")
            settings = dataclasses.replace(cls() if settings is None else settings, **chosen)
            for name, field in fields.items():
                _check(name, getattr(settings, name), field)
            return function(*args, settings=settings, **given)

        shown: Any = called
        kind = inspect.Parameter.KEYWORD_ONLY
        keywords = [inspect.Parameter(f.name, kind, default=f.default, annotation=f.type) for f in fields.values()]
        others = [parameter for name, parameter in own.items() if name != "settings"]
        shown.__signature__ = inspect.signature(function).replace(parameters=[*others, *keywords])
        shown.arguments = [f"{field.name}: {_described(field)}" for field in fields.values()]
        if function.__doc__:  # a constructor's arguments are in the text of its class
            shown.__doc__ = with_arguments(function.__doc__, shown.arguments)
        return shown

    return decorate


def _described(field: dataclasses.Field) -> str:
    """What a setting does, in the words of Python."""
    choices = field.metadata["choices"]
    text = re.sub(r"\bnull\b", "None", field.metadata["help"]).removesuffix(".")
    return f"{text} ({', '.join(map(str, choices))})." if choices else f"{text}."


def _check(name: str, value: Any, field: dataclasses.Field) -> None:
    if value is None and field.default is None:
        return
    choices, least, most = field.metadata["choices"], field.metadata["least"], field.metadata["most"]
    if choices is not None and value not in choices:
        raise K2DError(f"{name} {value!r}: choose one of {', '.join(map(str, choices))}{did_you_mean(value, choices)}")
    if value is not None and least is not None and not value >= least:
        raise K2DError(f"{name} {value!r}: at least {least:g}")
    if value is not None and most is not None and not value <= most:
        raise K2DError(f"{name} {value!r}: at most {most:g}")
