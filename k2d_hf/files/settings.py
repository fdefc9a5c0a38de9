"""Settings as dataclasses: read from plain mappings with an error for every mistake, and as command-line options.

Used by the recipe and by each command, so that a setting is written down once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

import yaml

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.formatting import quote, short_name

T = TypeVar("T")

hints_of = typing.get_type_hints
"""Types of the settings of a dataclass, by name."""

LONGEST_METAVAR = 24  # characters; longer choices are listed in the help's text
_SECTION_NAME = re.compile(r"\w[\w.-]{0,39}")
_MISTAKABLE = 0.8  # likeness of a name to a setting's above which it is taken for a slip
LISTED = 12  # known names that an error lists; more would bury what is wrong


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    choices: Iterable[Any] | None = None,
    least: float | None = None,
    most: float | None = None,
    metavar: str | None = None,
    short_for: str | None = None,
    by_name: bool = False,
    no_effect: str | None = None,
    after_model: bool = False,
    private: bool = False,
) -> Any:
    """A dataclass field with a description, its limits, and what has to be done again when it changes.

    Args:
        default: the value where none is given; without one the setting must be given. A dataclass is a section.
        help: one sentence for `--help` and for errors.
        choices: the values that there are.
        least: the smallest number.
        most: the largest number.
        metavar: of the value in `--help`, where its type gives none.
        short_for: of a section: the setting that is meant where text stands for the whole section.
        by_name: of a section: there may be several, as a mapping from names to sections.
        no_effect: why the result is the same for any value; None, the default, where it may differ.
        after_model: it decides what becomes of a model's output, which is kept: no model runs again for it.
        private: text of the user's own, which no card shows.
    """
    metadata = {"help": help, "choices": choices, "least": least, "most": most, "metavar": metavar}
    metadata |= {"short_for": short_for, "by_name": by_name, "no_effect": no_effect, "after_model": after_model}
    metadata |= {"private": private}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    if dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=typing.cast(type, default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_settings(cls: type[T], values: Any, *, where: str, section: str = "") -> T:
    """Build the dataclass `cls` from a mapping as YAML gives it, its sections (nested dataclasses) too; None is empty.

    Raises K2DError for an unknown key, a wrong type or value, or a missing setting: one line that names the key, with
    its `section`, and `where` it stands, the file or command.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise K2DError(f"{where}: {section or 'the recipe'} must be a mapping of settings, not {quote(values)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = hints_of(cls)
    check_names(values, fields, where=where, section=section)
    read: dict[str, Any] = {}
    for name, field in fields.items():
        key = f"{section}.{name}" if section else name
        if name in values:
            read[name] = _read_field(field, hints[name], values[name], where=where, key=key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise K2DError(f"{where}: {key}: missing; give {field.metadata['help']}")
    with prefixed(f"{where}: {section}." if section else f"{where}: "):  # by what settings mean together
        return cls(**read)


def _read_field(field: dataclasses.Field, hint: Any, value: Any, *, where: str, key: str) -> Any:
    nested = section_of(hint)
    if nested is None:
        read = read_value(value, hint, where=where, key=key)
        if read is not None:
            check_value(read, field.metadata, where=where, key=key)
        return read
    if value is None and type(None) in _options(hint):
        return None
    if field.metadata["by_name"] and isinstance(value, Mapping) and _names_sections(value, nested):
        check_section_names(value, nested, where=where, key=key)
        return {
            str(name): _read_section(field, nested, section, where=where, key=f"{key}.{name}")
            for name, section in value.items()
        }
    return _read_section(field, nested, value, where=where, key=key)


def _read_section(field: dataclasses.Field, nested: Any, value: Any, *, where: str, key: str) -> Any:
    short_for = field.metadata["short_for"]
    if short_for is not None and not isinstance(value, Mapping):
        value = {short_for: read_value(value, hints_of(nested)[short_for], where=where, key=key)}
    return read_settings(nested, value, where=where, section=key)


def _names_sections(values: Mapping[Any, Any], cls: Any) -> bool:
    """Whether the keys of a mapping are names of sections, and not those of the settings of a single one."""
    known = [field.name for field in dataclasses.fields(cls)]
    return bool(values) and not any(name in known for name in values)


def check_section_names(names: Iterable[Any], cls: Any, *, where: str, key: str) -> None:
    """Raise K2DError for a name of a section `cls` that cannot be a file's, that another is, or that looks like a slip.

    A setting that is spelt wrong would else be taken for a name.
    """
    known, names = [field.name for field in dataclasses.fields(cls)], list(names)
    for name in names:
        if not _SECTION_NAME.fullmatch(str(name)):
            characters = "letters, digits, dots, dashes and underscores, at most 40"
            raise K2DError(f"{where}: {key}: {quote(name)} cannot be the name of a set, and of its files: {characters}")
        if near := did_you_mean(name, known, cutoff=_MISTAKABLE):
            raise K2DError(f"{where}: {key}: {name}: no such setting, and too near to one for the name of a set{near}")
    folded: dict[str, Any] = {}
    for name in names:
        other = folded.setdefault(str(name).casefold(), name)
        if other is not name:
            raise K2DError(f"{where}: {key}: {other} and {name} are one name to some file systems; rename one")


def section_of(hint: Any) -> Any:
    """The dataclass of settings that a type is, or may be; None of a plain value."""
    return next((option for option in _options(hint) if dataclasses.is_dataclass(option)), None)


def deciding(settings: Any, *, models: bool = False) -> dict[str, Any]:
    """The settings that a result depends on: all, those of sections too, but what is declared to have no effect.

    The key of a result is made of these, so that a forgotten declaration costs a second run, and never gives a result
    that is out of date. `models` leaves out those, too, that decide what becomes of the models' output.
    """
    left_out = ("no_effect", "after_model") if models else ("no_effect",)
    decides: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        if not any(field.metadata.get(name) for name in left_out):
            value = getattr(settings, field.name)
            decides[field.name] = _deciding(value, models)
    return decides


def _deciding(value: Any, models: bool) -> Any:
    if isinstance(value, dict):
        return {name: _deciding(inner, models) for name, inner in value.items()}
    return deciding(value, models=models) if dataclasses.is_dataclass(value) else value


def check_names(names: Iterable[Any], known: Iterable[str], *, where: str, section: str = "") -> None:
    """Raise K2DError for the first name that is no setting, with the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            key = f"{section}.{short_name(name)}" if section else short_name(name)
            hint = f"; known are {', '.join(known)}" if len(known) <= LISTED else ""
            raise K2DError(f"{where}: {key}: no such setting{did_you_mean(name, known) or hint}")


def did_you_mean(value: Any, known: Iterable[Any], *, cutoff: float = 0.6) -> str:
    """The end of an error that names the nearest of what is known; nothing where none is near."""
    near = difflib.get_close_matches(str(value), map(str, known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def check_value(value: Any, limits: Mapping[str, Any], *, where: str, key: str) -> None:
    """Raise K2DError if `value` is none of the `choices`, below `least` or above `most` of the limits."""
    choices, least, most = limits["choices"], limits["least"], limits["most"]
    if choices is not None and value not in choices:
        hint = did_you_mean(value, choices)
        raise K2DError(f"{where}: {key}: {quote(value)} is none of {', '.join(map(str, choices))}{hint}")
    if least is not None and most is not None and not least <= value <= most:
        raise K2DError(f"{where}: {key}: {quote(value)} is outside {least:g} to {most:g}")
    if least is not None and not value >= least:
        raise K2DError(f"{where}: {key}: {quote(value)} is too small; at least {least:g}")


def read_value(value: Any, hint: Any, *, where: str, key: str) -> Any:
    """`value` as the type `hint` wants it; K2DError if it does not fit.

    Whole numbers serve as floats, and `1e-4`, a string to YAML, as a number.
    """
    for option in _options(hint):
        fits, converted = _convert(value, option)
        if fits:
            return converted
    wants_text = str in _options(hint) and not isinstance(value, (list, dict))
    advice = "; put it in quotes" if wants_text and value is not None else ""
    raise K2DError(f"{where}: {key}: {quote(value)} is not {_describe(hint)}{advice}")


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    kind = typing.get_origin(hint) or hint
    if hint is Any:
        return True, value
    if kind in (typing.Union, types.UnionType):  # of the elements of a list
        return next((found for option in _options(hint) if (found := _convert(value, option))[0]), (False, None))
    if hint is float:
        return _convert_float(value)
    if kind in (bool, str, dict, type(None)):
        return isinstance(value, kind), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint], value
    if kind is typing.Literal:
        return value in typing.get_args(hint), value
    if kind in (list, tuple) and isinstance(value, (list, tuple)):
        of = typing.get_args(hint)[:1] or (Any,)
        items = [_convert(item, of[0]) for item in value]
        return all(fits for fits, _ in items), kind(item for _, item in items)
    return False, None


def _convert_float(value: Any) -> tuple[bool, float | None]:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False, None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return False, None
    return math.isfinite(number), number


def _describe(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    described = []
    for option in _options(hint):
        if typing.get_origin(option) in (list, tuple):
            elements = _options(typing.get_args(option)[0])
            described.append("a list of " + " or ".join(_plural(_describe(one)) for one in elements))
        elif isinstance(option, type) and issubclass(option, Enum):
            described.append("one of " + ", ".join(str(member.value) for member in option))
        elif (typing.get_origin(option) or option) is dict:
            described.append("a mapping")
        else:
            described.append(names.get(option, getattr(option, "__name__", str(option))))
    return " or ".join(dict.fromkeys(described))


def _plural(described: str) -> str:
    if described.startswith("a list "):
        return described.replace("a list", "lists", 1)
    return described if described == "text" else described.removeprefix("a ") + "s"


def assign(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`values` with assignments such as `distil.max_steps=50` made, the right-hand sides read as YAML.

    Raises K2DError if there is no `=`, the value is no YAML, or what stands before a dot is no section.
    """
    assigned = dict(values)
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise K2DError(f"--set {short_name(text)}: write key=value, such as distil.max_steps=50")
        *sections, name = key.strip().split(".")
        inner = assigned
        for section in sections:
            below = inner.get(section)
            if below is not None and not isinstance(below, Mapping):
                raise K2DError(f"--set {short_name(text)}: {short_name(section)} is {quote(below)} and no section")
            inner[section] = inner = dict(below or {})
        inner[name] = _as_yaml(value, f"--set {short_name(text)}")
    return assigned


def _as_yaml(text: str, where: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        raise K2DError(f"{where}: the value is not YAML; quote what has special characters") from None


def add_options(parser: Any, cls: type, *, skip: Iterable[str] = ()) -> None:
    """Offer each setting of the dataclass `cls` as an option of `parser`; those not given stay unset.

    One that is false by default is true where its option stands alone.
    """
    hints = hints_of(cls)
    for field in dataclasses.fields(cls):
        if field.name not in skip:
            alone = {"nargs": "?", "const": "true"} if field.default is False else {}
            shown = metavar_of(field, hints[field.name])
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                dest=field.name,
                default=argparse.SUPPRESS,
                metavar=shown,
                help=describe_setting(field, besides=shown).replace("%", "%%"),
                **alone,
            )


def metavar_of(field: dataclasses.Field, hint: Any) -> str:
    """The value of a setting in `--help`: its choices if they are short, else its type or name."""
    if metavar := field.metadata.get("metavar"):
        return metavar
    name = field.name.rpartition("_")[2].upper()
    if choices := field.metadata.get("choices"):
        listed = "|".join(map(str, choices))
        return listed if len(listed) <= LONGEST_METAVAR else name
    by_type = {bool: "true|false", int: "N", float: "NUMBER"}
    kinds = {by_type.get(option) for option in _options(hint) if option is not type(None)}
    if takes_list(hint) and "N" in kinds:
        return "N|N,N,..."
    return next((kind for kind in by_type.values() if kind in kinds), name)


def describe_setting(field: dataclasses.Field, *, besides: str = "") -> str:
    """What a setting does, its choices unless they stand `besides`, and its default, as help shows them."""
    choices = field.metadata.get("choices")
    notes = [", ".join(map(str, choices))] if choices and "|" not in besides else []
    notes += [f"default: {_shown(field.default)}"] if field.default not in (dataclasses.MISSING, None) else []
    return field.metadata.get("help", "") + (f" ({'; '.join(notes)})" if notes else "")


def documented(cls: type[T], *, besides: type | None = None) -> type[T]:
    """The dataclass `cls` with its fields listed in its docstring, as `Args`; not those of the class `besides`."""
    others = {field.name for field in dataclasses.fields(besides)} if besides is not None else set()
    fields = [field for field in dataclasses.fields(cls) if field.name not in others]  # type: ignore[arg-type]
    cls.__doc__ = with_arguments(cls.__doc__, (f"{field.name}: {describe_setting(field)}" for field in fields))
    return cls


def with_arguments(doc: str | None, lines: Iterable[str]) -> str:
    """A docstring with more lines at the end of its `Args`, or at its own where it has none."""
    text = inspect.cleandoc(doc or "").splitlines()
    if "Args:" not in text:
        text += ["", "Args:"]
    end = next((at for at in range(text.index("Args:"), len(text)) if not text[at]), len(text))
    return "\n".join([*text[:end], *(f"    {line}" for line in lines), *text[end:]])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def takes_list(hint: Any, *, text: bool = True) -> bool:
    """Whether a setting of this type may be a list; with `text` false, only where it may not be text too."""
    kinds = [typing.get_origin(option) or option for option in _options(hint)]
    return list in kinds and (text or str not in kinds)


def given_options(arguments: argparse.Namespace, cls: type, *, but: Iterable[str] = ()) -> dict[str, Any]:
    """The settings of `cls` that were given as options: `0,-1` is a list, the rest is YAML, or else a K2DError.

    Those of `but` are left out: they are options of their own.
    """
    hints = {name: hint for name, hint in hints_of(cls).items() if name not in but}
    return {name: _given(name, text, hints[name]) for name, text in vars(arguments).items() if name in hints}


def read_mapping(text: str, where: str) -> Mapping[str, Any]:
    """A mapping that is written in one line of YAML, such as `{source: dev.jsonl}`; K2DError if it is none."""
    value = _as_yaml(text, where)
    if not isinstance(value, Mapping):
        raise K2DError(f"{where}: {quote(value)} is not a mapping")
    return value


def _given(name: str, text: str | list[str], hint: Any) -> Any:
    """The value of an option: text where text is wanted, a mapping where there may be one and it looks like one."""
    if isinstance(text, list):
        return text
    kinds = [typing.get_origin(option) or option for option in _options(hint)]
    if str in kinds and not (dict in kinds and text.lstrip().startswith("{")):
        return text.split(",") if "," in text and list in kinds else text
    bare_list = "," in text and not text.lstrip().startswith(("[", "{", '"', "'"))
    return _as_yaml(f"[{text}]" if bare_list else text, f"--{name.replace('_', '-')} {text}")
