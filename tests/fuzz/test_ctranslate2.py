"""The CTranslate2 reader: a hostile folder is a checkpoint of sound weights, or one line; never more than it is worth."""

import copy
import functools
import json
import math
import shutil

import numpy as np
from hypothesis import strategies as st

from k2d_hf.models.conversion import fill_checkpoint
from k2d_hf.models.ctranslate2_file import read_ctranslate2
from k2d_hf.models.ctranslate2_weights import transformers_weights, weight_shapes

from .mutations import EXTREMES, TEXTS, VALUES, mutated_bytes, mutated_tree, one_of_these
from .targets import bounded, fuzz, outcome, workspace
from .tiny_model import CONFIG, TYPES, Array, tokenizer_json, valid

NAMES = [array.name for array in valid().arrays]
ODD_NAMES = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map(lambda name: name.replace("layer_0", "layer_1")),
    st.builds(
        "{}/layer_{}/ffn/linear_0/weight".format, st.sampled_from(["encoder", "decoder"]), one_of_these(EXTREMES)
    ),
    st.sampled_from(["a\nb", "decoder/projection/weight", "_scale", "", "/", "encoder/layer_٣/ffn/linear_0/bias"]),
    TEXTS,
)


@st.composite
def models(draw, most: int = 4) -> bytes:
    """The file of a model with up to `most` faults in its structure."""
    model = copy.deepcopy(valid())
    for _ in range(draw(st.integers(0, most))):
        array = draw(st.sampled_from(model.arrays)) if model.arrays else Array("a", b"", [], 0)
        fault = draw(st.sampled_from(("name", "shape", "type", "size", "rank", "content", "drop", "again", "alias", "loop", "layers", "cast", "head", "count", "huge")))  # fmt: skip
        if fault == "name":
            array.name = draw(ODD_NAMES)
        elif fault == "shape":
            sides = st.one_of(st.integers(0, 5), one_of_these(EXTREMES))
            count = max(len(array.content) // 4, 1)
            factors = [side for side in (1, 2, 3, 4) if count % side == 0]
            side = draw(st.sampled_from(factors))
            array.shape = draw(st.one_of(st.lists(sides, max_size=6), st.just([count // side, side]), st.just([count])))
        elif fault == "type":
            array.type_id = draw(st.one_of(st.integers(0, 6), st.just(255)))
        elif fault == "size":
            array.size = draw(one_of_these(EXTREMES))
        elif fault == "rank":
            array.rank = draw(st.sampled_from((0, 1, 4, 5, 255)))
        elif fault == "content":
            number = draw(st.sampled_from((0.0, math.nan, math.inf, -math.inf, 3e38, 1e-45)))
            array.content = np.full(len(array.content) // 4, number, np.float32).tobytes()
        elif fault == "drop" and model.arrays:
            model.arrays.remove(array)
        elif fault == "again":
            model.arrays.append(copy.deepcopy(array))
        elif fault == "alias":
            model.aliases.append((draw(ODD_NAMES), draw(ODD_NAMES)))
        elif fault == "loop":
            model.aliases += [(array.name, "x"), ("x", "y"), ("y", array.name), ("y", "y")]
        elif fault == "layers":
            layers = draw(st.sampled_from((2, 50, 600)))
            other = array.name.replace("layer_0", "layer_{}")
            model.aliases += [(other.format(index), array.name) for index in range(1, layers)]
        elif fault == "cast":
            kind = draw(st.integers(0, 5))
            values = np.frombuffer(array.content[: len(array.content) // 4 * 4], np.float32)
            if values.size == math.prod(array.shape):
                with np.errstate(all="ignore"):
                    array.content, array.type_id = values.astype(TYPES[kind]).tobytes(), kind
        elif fault == "head":
            model.spec = draw(st.one_of(st.just("WhisperSpec"), TEXTS))
            model.version = draw(st.sampled_from((3, 4, 5, 6, 7)))
        elif fault == "count":
            model.arrays_said, model.aliases_said = draw(st.tuples(*[st.none() | one_of_these(EXTREMES)] * 2))
        elif fault == "huge":
            array.content, array.shape, array.type_id = bytes(1 << 16), [1 << 14], 0
    return model.written()


FILES = st.one_of(models(), models(), mutated_bytes(models(most=1)), st.binary(max_size=60))


def written(content: bytes, config: bytes | None = None, tokenizer: bytes | None = None):
    folder = workspace() / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "model.bin").write_bytes(content)
    if config is not None:
        (folder / "config.json").write_bytes(config)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer)
    return folder


def allowance(content: bytes) -> float:
    """Megabytes that a file of this length may take: a file of whole numbers becomes one of floats, which are copied."""
    return 2 + 100 * len(content) / (1 << 20)


@fuzz(examples=300, content=FILES)
def test_any_model_file_is_weights_or_one_line(content):
    path = written(content) / "model.bin"

    def read():
        model = read_ctranslate2(path)
        assert len(model.variables) * 10 <= len(content)
        weights = transformers_weights(model)
        weight_shapes(model, weights)
        return weights

    with np.errstate(all="ignore"), bounded(megabytes=allowance(content)):
        weights = outcome(read, names=str(path))
    if weights is None:
        return
    assert sum(array.nbytes for array in weights.values()) <= 32 * len(content)
    for name, array in weights.items():
        assert array.dtype == np.float32
        assert np.isfinite(array).all(), f"{name} is not finite"


def as_json(values: object) -> bytes:
    return json.dumps(values).encode()


JSON = (
    b"[" * 100_000,
    b"{",
    b"}",
    b'"',
    b"null",
    b"NaN",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"[]",
    b"-1",
    b'{"a":' * 900,
)


@functools.cache
def prepared() -> None:
    """Pay for imports before anything is timed, and see that what the faults are made in is sound."""
    target = workspace() / "sound"
    target.mkdir()
    fill_checkpoint(written(valid().written(), as_json(CONFIG), as_json(tokenizer_json())), target)


@fuzz(
    examples=60,
    content=st.one_of(st.just(valid().written()), st.just(valid().written()), models(most=2)),
    config=st.one_of(
        st.just(as_json(CONFIG)),
        mutated_tree(CONFIG, values=VALUES).map(as_json),
        mutated_bytes(st.just(as_json(CONFIG)), pieces=JSON),
        st.none(),
    ),
    tokenizer=st.one_of(
        st.just(as_json(tokenizer_json())),
        mutated_tree(tokenizer_json(), values=VALUES).map(as_json),
        mutated_bytes(st.just(as_json(tokenizer_json())), pieces=JSON),
    ),
)
def test_any_folder_is_a_checkpoint_or_one_line(content, config, tokenizer):
    from safetensors.numpy import load_file

    prepared()
    folder, target = written(content, config, tokenizer), workspace() / "checkpoint"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with np.errstate(all="ignore"), bounded(seconds=4.0, megabytes=64):
        outcome(fill_checkpoint, folder, target, names=str(folder))
    if (target / "config.json").is_file():  # the last that is written
        assert all(np.isfinite(array).all() for array in load_file(target / "model.safetensors").values())
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            json.loads((target / name).read_text(encoding="utf-8"))
