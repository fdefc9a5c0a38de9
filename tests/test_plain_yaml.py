"""YAML of a recipe: what the safe loader would crash on, or fill the memory with, is refused with its reason."""

import pytest
import yaml

from k2d_hf.files.plain_yaml import load_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}\n", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: {k: &b {<<: &c {x: 1}, x: 2}}\nd: {<<: *b}\n", {"a": {"k": {"x": 2}}, "d": {"x": 2}}),
        ("[1, 2.5, yes, null, 1e3, 5e-4]", [1, 2.5, True, None, "1e3", "5e-4"]),
        (f"a: {2**64 - 1}", {"a": 2**64 - 1}),
        ("", None),
    ],
)
def test_what_a_person_writes_is_read(text, values):
    assert load_yaml(text) == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "values with aliases expanded, where at most 5000 are read"),
        (MERGES, "values with aliases expanded, where at most 5000 are read"),
        ("&a [*a]", "an alias of what it stands in"),
        ("a: &a {b: *a}", "an alias of what it stands in"),
        ("[" * 5000, "more than 50 levels"),
        ("a: 2020-13-01", "not of type timestamp"),
        ("a: !!timestamp x", "not of type timestamp"),
        ("a: !!int ''", "not of type int"),
        ("a: !!bool x", "not of type bool"),
        ("a: 0x_", "not of type int"),
        ("a: !!map x", "expected a mapping node"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
        ("a: " + "1:" * 20_000 + "1", "a number of 40001 digits"),
        (f"a: {2**64}", "a number of more than 64 bits"),
        ('a: "\\ud800"', "a character that is no text"),
        ('a: "\\0"', "a character that is no text"),
        ("a: 1\na: 2", "a is set twice"),
        ('"a\\nb": 1\n"a\\nb": 2', r"'a\\nb' is set twice"),
        ("".join(f"k{index}: 1\n" for index in range(3000)), "6001 values"),
        ("#" * 200_000, "200000 characters, where at most 131072 are read"),
    ],
)
def test_what_no_person_writes_is_refused(text, problem):
    with pytest.raises(yaml.YAMLError, match=problem):
        load_yaml(text)
