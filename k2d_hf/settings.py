"""Settings as dataclasses: read from plain mappings with every mistake named, and offered as command-line options.

Used by the recipe and by each verb of the command line, so that a setting is written down once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

import yaml

from k2d_hf.errors import K2DError

T = TypeVar("T")


def setting(default: Any = dataclasses.MISSING, help: str = "", **metadata: Any) -> Any:
    """A dataclass field with a description; `choices` in the metadata are enforced."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help, **metadata})
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


def read_settings(cls: type[T], values: Any, *, where: str, section: str = "") -> T:
    """Build the dataclass `cls` from a mapping, its nested dataclasses too.

    Args:
        cls: a dataclass.
        values: mapping of setting names to values, as YAML gives them; None is an empty one.
        where: file or command, for errors.
        section: name of the section, with which errors name the key.

    Raises:
        K2DError: one line that names key and file, for an unknown key, a wrong type or a missing setting.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise K2DError(f"{where}: {section or 'the recipe'} must be a mapping of settings, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    check_names(values, fields, where=where, section=section)
    read: dict[str, Any] = {}
    for name, field in fields.items():
        key = f"{section}.{name}" if section else name
        if name not in values:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                if not dataclasses.is_dataclass(hints[name]):
                    raise K2DError(f"{where}: {key}: missing; {field.metadata.get('help', 'it must be set')}")
                read[name] = read_settings(hints[name], {}, where=where, section=key)
        elif dataclasses.is_dataclass(hints[name]):
            read[name] = read_settings(hints[name], values[name], where=where, section=key)
        else:
            read[name] = read_value(values[name], hints[name], where=where, key=key)
            check_choice(read[name], field.metadata.get("choices"), where=where, key=key)
    return cls(**read)


def check_names(names: Iterable[Any], known: Iterable[str], *, where: str, section: str = "") -> None:
    """Raise K2DError for the first name that is no setting, with the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            key = f"{section}.{name}" if section else name
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise K2DError(f"{where}: {key}: no such setting; {hint}")


def check_choice(value: Any, choices: Iterable[Any] | None, *, where: str, key: str) -> None:
    """Raise K2DError if `value` is not among `choices`, where there are any."""
    if choices is not None and value not in list(choices):
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise K2DError(f"{where}: {key}: {value!r} is none of {', '.join(map(str, choices))}{hint}")


def read_value(value: Any, hint: Any, *, where: str, key: str) -> Any:
    """`value` as the type `hint` wants it: whole numbers serve as floats, and `1e-4`, a string to YAML, as a number.

    Raises:
        K2DError: if it does not fit.
    """
    for option in _options(hint):
        fits, converted = _convert(value, option)
        if fits:
            return converted
    raise K2DError(f"{where}: {key}: {value!r} is not {_describe(hint)}")


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True, value
    if hint is type(None) or hint is None:
        return value is None, None
    if hint is float and not isinstance(value, bool):
        try:
            return True, float(value)
        except (TypeError, ValueError):
            return False, None
    if hint in (bool, str):
        return isinstance(value, hint), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint], value
    if origin is typing.Literal:
        return value in typing.get_args(hint), value
    if (origin or hint) in (list, tuple) and isinstance(value, (list, tuple)):
        of = typing.get_args(hint)[:1] or (Any,)
        items = [_convert(item, of[0]) for item in value]
        return all(fits for fits, _ in items), (origin or hint)(item for _, item in items)
    if (origin or hint) is dict:
        return isinstance(value, dict), value
    return False, None


def _describe(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    described = []
    for option in _options(hint):
        if typing.get_origin(option) in (list, tuple):
            described.append(f"a list of {_describe(typing.get_args(option)[0]).removeprefix('a ')}s")
        else:
            described.append(names.get(option, getattr(option, "__name__", str(option))))
    return " or ".join(described)


def parse_assignment(text: str, *, where: str = "--set") -> tuple[str, Any]:
    """`distil.max_steps=50` as a key and a value read as YAML.

    Raises:
        K2DError: if there is no `=`, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise K2DError(f"{where} {text}: write section.key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise K2DError(f"{where} {text}: the value is no YAML ({error.__class__.__name__})") from None


def add_options(parser: argparse.ArgumentParser, cls: type, *, skip: Iterable[str] = ()) -> None:
    """Offer each setting of the dataclass `cls` as an option of `parser`; those not given stay unset."""
    for field in dataclasses.fields(cls):
        if field.name in skip or not field.init:
            continue
        default = field.default if field.default is not dataclasses.MISSING else None
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=field.name,
            default=argparse.SUPPRESS,
            metavar=field.metadata.get("metavar", "VALUE"),
            choices=field.metadata.get("choices"),
            help=(field.metadata.get("help", "") + shown).replace("%", "%%"),
        )


def given_options(arguments: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The settings of `cls` that were given on the command line, as YAML reads them."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: _as_yaml(text) for name, text in vars(arguments).items() if name in names}


def _as_yaml(text: str) -> Any:
    if "," in text and not text.lstrip().startswith(("[", "{", '"', "'")):
        text = f"[{text}]"
    return yaml.safe_load(text)
