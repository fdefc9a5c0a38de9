"""Settings: what is read, what is refused and with which line."""

import argparse
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import add_options, assign, given_options, read_settings, read_value, setting


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.5, "A rate.", least=0, most=1)
    kind: str = setting("one", "A kind.", choices=("one", "two"))
    layers: int | list[int] = setting(2, "Layers.")
    on: bool = setting(True, "On or off.")
    note: str | None = setting(None, "A note.")


@dataclass(frozen=True)
class Outer:
    name: str = setting(help="a name")
    steps: int = setting(1, "Steps.", least=1)
    more: dict[str, Any] = setting({}, "More.")
    inner: Inner = setting(Inner)
    source: Inner | None = setting(None, "A source.", short_for="note")


def read(**values):
    return read_settings(Outer, {"name": "n", **values}, where="r.yaml")


def test_defaults_hold_where_nothing_is_given():
    assert read() == Outer(name="n", inner=Inner(), more={})
    assert read(inner=None) == read()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"stepps": 1}, "r.yaml: stepps: no such setting; did you mean steps?"),
        ({"inner": {"rat": 1}}, "r.yaml: inner.rat: no such setting; did you mean rate?"),
        ({"zzz": 1}, "r.yaml: zzz: no such setting; known are name, steps, more, inner, source"),
        ({"name": 2024}, "r.yaml: name: 2024 is not text; put it in quotes"),
        ({"inner": {"note": False}}, "r.yaml: inner.note: False is not text or null; put it in quotes"),
        ({"steps": "many"}, "r.yaml: steps: 'many' is not a whole number"),
        ({"steps": 1.5}, "r.yaml: steps: 1.5 is not a whole number"),
        ({"steps": True}, "r.yaml: steps: True is not a whole number"),
        ({"steps": 0}, "r.yaml: steps: 0 is too small; at least 1"),
        ({"inner": {"rate": 1.5}}, "r.yaml: inner.rate: 1.5 is outside 0 to 1"),
        ({"inner": {"rate": "nan"}}, "r.yaml: inner.rate: 'nan' is not a number"),
        ({"inner": {"on": 1}}, "r.yaml: inner.on: 1 is not true or false"),
        ({"inner": {"layers": ["a"]}}, "r.yaml: inner.layers: ['a'] is not a whole number or a list of whole numbers"),
        ({"inner": {"kind": "ones"}}, "r.yaml: inner.kind: 'ones' is none of one, two; did you mean one?"),
        ({"inner": 3}, "r.yaml: inner must be a mapping of settings, not 3"),
        ({"more": 3}, "r.yaml: more: 3 is not a mapping"),
        ({"source": 3}, "r.yaml: source: 3 is not text or null; put it in quotes"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(values, line):
    with pytest.raises(K2DError) as raised:
        read(**values)
    assert str(raised.value) == line


def test_what_is_missing_is_named_with_what_it_is():
    with pytest.raises(K2DError, match=r"^r.yaml: name: missing; give a name$"):
        read_settings(Outer, {}, where="r.yaml")


def test_text_may_stand_for_a_section():
    assert read(source="here").source == Inner(note="here")
    assert read(source={"note": "here", "rate": 0}).source == Inner(note="here", rate=0.0)


@pytest.mark.parametrize(
    ("value", "hint", "read_as"),
    [
        ("5e-4", float, 5e-4),
        (1, float, 1.0),
        ("1e-4", float | None, 1e-4),
        ([1, 2], list[int], [1, 2]),
        (None, str | None, None),
    ],
)
def test_numbers_are_read_as_they_are_meant(value, hint, read_as):
    result = read_value(value, hint, where="r.yaml", key="k")
    assert result == read_as
    assert type(result) is type(read_as)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_as_text(number):
    assert read_value(repr(number), float, where="", key="") == number


def test_assignments_reach_into_sections_and_leave_the_original():
    values = {"inner": {"rate": 0.1}}
    assigned = assign(values, ["inner.rate=5e-4", "more.peft.r=8", "name=x", "inner.layers=[0, -1]", "source="])
    assert assigned == {
        "inner": {"rate": "5e-4", "layers": [0, -1]},
        "more": {"peft": {"r": 8}},
        "name": "x",
        "source": None,
    }
    assert values == {"inner": {"rate": 0.1}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("steps", "--set steps: write key=value, such as distil.max_steps=50"),
        ("=3", "--set =3: write key=value, such as distil.max_steps=50"),
        ("name.first=3", "--set name.first=3: name is 'n' and no section"),
        ("name=[", "--set name=[: the value is not YAML; quote what has special characters"),
    ],
)
def test_an_assignment_that_cannot_be_made_says_why(text, line):
    with pytest.raises(K2DError) as raised:
        assign({"name": "n"}, [text])
    assert str(raised.value) == line


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ([], {}),
        (["--layers", "0,-1"], {"layers": [0, -1]}),
        (["--layers", "3"], {"layers": 3}),
        (["--on", "false", "--rate", "1e-1"], {"on": False, "rate": "1e-1"}),
        (["--note", "no"], {"note": "no"}),  # text stays text, whatever it is to YAML
    ],
)
def test_options_are_read_by_type(typed, given):
    parser = argparse.ArgumentParser()
    add_options(parser, Inner)
    assert given_options(parser.parse_args(typed), Inner) == given


def test_an_option_that_is_no_yaml_is_one_line():
    parser = argparse.ArgumentParser()
    add_options(parser, Inner)
    with pytest.raises(K2DError, match=r"^--layers \{: the value is not YAML"):
        given_options(parser.parse_args(["--layers", "{"]), Inner)


def test_help_shows_what_it_does_with_choices_and_default():
    parser = argparse.ArgumentParser(prog="x")
    add_options(parser, Inner)
    text = " ".join(parser.format_help().split())
    assert "--rate NUMBER A rate. (default: 0.5)" in text
    assert "--kind one|two A kind. (default: one)" in text
    assert "--on true|false On or off. (default: true)" in text
