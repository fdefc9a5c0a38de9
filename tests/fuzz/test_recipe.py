"""The recipe reader: any file and any overrides are a recipe that can be written and read again, or one line."""

import dataclasses
import functools
import os
import shutil
from unittest import mock

import pytest
import yaml
from hypothesis import strategies as st

from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.pipeline.recipe import Recipe, load_recipe

from .mutations import ANY_TEXT, NASTY_TEXTS, SCALARS, TEXTS, VALUES, mutated_bytes, mutated_tree, one_of_these
from .targets import bounded, fuzz, outcome, workspace

VALID = {
    "name": "mine",
    "recordings": {"source": "speech", "split": None},
    "teacher": "org/teacher",
    "auxiliary": ["org/small", "teacher"],
    "evaluation": "speech",
    "references": "speech",
    "language": "zh",
    "label": {"engine": "transformers", "beam_size": 5, "batch_size": 4, "max_duration": 30.0},
    "validate": {"metric": "composite", "threshold": 0.4, "normalise_by": "auxiliary"},
    "student": {"decoder_layers": [0, -1], "encoder_layers": None},
    "targets": {"kind": "hidden", "k": 32, "enabled": None},
    "distil": {"max_steps": 50, "learning_rate": 5e-4, "ce_weight": 0.8, "seed": 1, "peft": {"r": 4}},
    "evaluate": {"engine": "transformers", "speed_runs": 1, "before": True},
    "hub": {"repo_id": None, "private": True},
}
MINIMAL = b"name: mine\nrecordings: speech\nteacher: org/teacher\nauxiliary: teacher\n"
# Whatever a later stage would open, start or reach for is not what is tested.
DISTIL = sorted(
    field.name
    for field in dataclasses.fields(K2DTrainingArguments)
    if field.init and field.name not in ("deepspeed", "report_to", "parallelism_config", "torch_compile")
)
PIECES = (
    *(b"!!int ''", b"!!timestamp x", b"!!bool x", b"!!binary x", b"!!set {a}", b"!!map x", b"!!omap [a: 1]", b"!!float ''"),
    *(b"&a ", b"*a", b"<<: *a\n", b"<<: [*a, *a]\n", b"? [a]\n: b\n", b"!!python/object/apply:os.system ['true']", b"!!null x"),
    *(b"2020-13-01", b"0x_", b"0b_", b"1:99:99", b".nan", b"-.inf", b'"\\ud800"', b'"\\0"', b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"[" * 500, b"{a: " * 500, b"- " * 500, b"---\n", b"...\n", b"%YAML 9.9\n---\n", b"%TAG ! x\n---\n", b"|\n", b">\n"),
    *(b"'", b'"', b"#", b"\t", b": ", b"\n", b" ", b"\r", b"=: 1\n", b"~: 1\n", b"1: 1\n", b"[a]: 1\n", b'"a\\nb": 1\n', b"!"),
    *(b"k: 0x" + b"f" * 9000, b"".join(b"k%d: 1\n" % index for index in range(1500)), b"{" + b"a: 1, " * 900 + b"}"),
)  # fmt: skip
PATHS = [f"{section}.{name}" for section, inner in VALID.items() if isinstance(inner, dict) for name in inner]
OVERRIDES = st.one_of(
    st.builds(
        "{}={}".format,
        st.one_of(st.sampled_from([*VALID, *PATHS, *map("distil.{}".format, DISTIL)]), TEXTS),
        st.one_of(one_of_these([piece.decode("latin-1") for piece in PIECES]), TEXTS, st.integers().map(str)),
    ),
    TEXTS,
)


def bomb(width: int, levels: int, merge: bool) -> bytes:
    """A few lines whose aliases are width ** levels values."""
    lines = ["a0: &a0 {x: 1}" if merge else f"a0: &a0 [{', '.join(['x'] * width)}]"]
    for level in range(1, levels):
        again = ", ".join([f"*a{level - 1}"] * width)
        lines.append(
            f"a{level}: &a{level} {{<<: [{again}], y{level}: 1}}" if merge else f"a{level}: &a{level} [{again}]"
        )
    return "\n".join([*lines, f"name: *a{levels - 1}", ""]).encode()


def as_yaml(values: object) -> bytes:
    try:
        return yaml.safe_dump(values, allow_unicode=True).encode()
    except (ValueError, RecursionError):  # numbers of more digits than Python writes, and surrogates
        return MINIMAL + ascii(NASTY_TEXTS[-1]).encode()


TREES = st.one_of(
    mutated_tree(VALID, values=VALUES),
    mutated_tree(VALID, values=SCALARS, most=1),
    st.builds(
        lambda known, free: {**VALID, "distil": {**known, **free}},
        st.dictionaries(st.sampled_from(DISTIL), st.one_of(SCALARS, VALUES), max_size=2),
        st.dictionaries(TEXTS, SCALARS, max_size=1),
    ),
)
FILES = st.one_of(
    TREES.map(as_yaml),
    TREES.map(as_yaml),
    mutated_bytes(st.just(as_yaml(VALID)), pieces=PIECES),
    mutated_bytes(st.just(MINIMAL), pieces=PIECES),
    st.lists(one_of_these(PIECES), max_size=6).map(lambda pieces: MINIMAL + b"".join(pieces)),
    st.builds(bomb, st.integers(1, 30), st.integers(1, 30), st.booleans()),
    st.binary(max_size=100),
    ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@functools.cache
def folder() -> str:
    """A folder with recordings, in which one recipe was read, so that no import is timed."""
    path = workspace() / "recipes"
    (path / "speech").mkdir(parents=True)
    (path / "first.yaml").write_bytes(as_yaml(VALID))
    load_recipe(path / "first.yaml")
    return str(path)


@pytest.mark.slow
@fuzz(examples=250, content=FILES, overrides=st.one_of(st.just([]), st.lists(OVERRIDES, max_size=2)))
def test_any_bytes_are_a_recipe_or_one_line(content, overrides):
    path = os.path.join(folder(), "recipe.yaml")
    with open(path, "wb") as file:
        file.write(content)
    # Some settings of the Trainer become variables of the environment, which the next example must not find.
    with mock.patch.dict(os.environ), bounded(megabytes=64):
        recipe = outcome(load_recipe, path, overrides)
    if recipe is None:
        return
    assert isinstance(recipe, Recipe)
    assert recipe.name
    assert recipe.directory
    assert 0 <= recipe.validate.threshold <= 1
    assert 1 <= recipe.label.max_duration <= 30
    assert min(recipe.label.beam_size, recipe.label.batch_size, recipe.targets.k, recipe.evaluate.speed_runs) >= 1
    assert isinstance(recipe.teacher, (str, list))
    assert isinstance(recipe.distil, dict)
    again = os.path.join(folder(), "again.yaml")
    recipe.write(type(workspace())(again))
    with mock.patch.dict(os.environ):
        assert repr(load_recipe(again)) == repr(recipe)  # NaN is not itself
    shutil.rmtree(os.path.join(folder(), "unused"), ignore_errors=True)
