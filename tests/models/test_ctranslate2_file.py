"""The reader of model.bin takes whole Whisper files; anything else is one line with what is wrong."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.models.conversion import import_ctranslate2
from k2d_hf.models.ctranslate2_file import read_ctranslate2
from k2d_hf.models.ctranslate2_weights import transformers_weights, weight_shapes
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2


def variable(name, array, type_id):
    header = struct.pack("<H", len(name) + 1) + name.encode() + b"\0" + struct.pack("<B", array.ndim)
    return header + struct.pack(f"<{array.ndim}IBI", *array.shape, type_id, array.nbytes) + array.tobytes()


def model_bin(*variables, version=6, spec="WhisperSpec", aliases=()):
    head = struct.pack("<IH", version, len(spec) + 1) + spec.encode() + b"\0" + struct.pack("<II", 3, len(variables))
    names = (struct.pack("<H", len(name) + 1) + name.encode() + b"\0" for pair in aliases for name in pair)
    return head + b"".join([*variables, struct.pack("<I", len(aliases)), *names])


ONE = np.ones((2, 3), np.float32)
EMBEDDING = variable("decoder/embeddings/weight", ONE, 0)
LARGE = variable("decoder/embeddings/weight", np.ones((1000, 100), np.float32), 0)
EMPTY = variable("encoder/conv1/weight", np.zeros((0, 2**32 - 1, 3), np.float32), 0)
MANY_DIMENSIONS = variable("encoder/conv1/weight", np.ones((1,) * 60, np.float32), 0)
QUANTISED = variable("decoder/embeddings/weight", ONE.astype(np.int8), 1)
NO_SCALE = variable("decoder/embeddings/weight_scale", np.zeros(2, np.float32), 0)
NAN = variable("decoder/embeddings/weight", np.full((2, 3), np.nan, np.float32), 0)
LAYERS = [(f"decoder/layer_{index}/ffn/linear_0/weight", "decoder/embeddings/weight") for index in range(5000)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing or empty; give a folder with the model.bin of a CTranslate2 model"),
        (b"", "missing or empty"),
        (b"PK\x03\x04" + bytes(100), "not a CTranslate2 model that can be read here"),
        (b"\x06", "truncated at 1 bytes"),
        (model_bin(version=3), "version 3, known: 4 to 6"),
        (model_bin(version=7), "version 7, known: 4 to 6"),
        (model_bin(spec="TransformerSpec"), "a CTranslate2 TransformerSpec, not a Whisper model"),
        (model_bin(), "incomplete Whisper model, no model.decoder.embed_tokens.weight"),
        (model_bin(EMBEDDING), "incomplete Whisper model, no model.encoder.conv1.weight"),
        (model_bin(EMBEDDING)[:-20], "truncated at"),
        (model_bin(variable("decoder/embeddings/weight", ONE, 9)), "'decoder/embeddings/weight' is damaged"),
        (model_bin(variable("decoder/embeddings/weight", ONE, 4)), "'decoder/embeddings/weight' is damaged"),
        (model_bin(variable("decoder/embeddings/weight", ONE.astype(np.int8), 1)), "no variable .*weight_scale"),
        (model_bin(variable("decoder/embeddings/weight", ONE.astype(np.int32), 3)), "weight_scale"),
        (model_bin(EMPTY), "is damaged"),
        (model_bin(MANY_DIMENSIONS), "is damaged"),
        (model_bin(LARGE, aliases=LAYERS), "its aliases make \\d+ bytes of it"),
        (model_bin(variable("decoder/rotary/weight", ONE, 0)), "is not part of a Whisper model"),
        (model_bin(variable("one\nanother", ONE, 0)), r"'one\\nanother' is not part of a Whisper model"),
        (model_bin(variable("long" * 1000, ONE, 0)), r"longlon \.\.\. is not part of a Whisper model"),
        (model_bin(spec="one\nanother"), r"a CTranslate2 'one\\nanother', not a Whisper model"),
        (model_bin(NAN), "decoder/embeddings/weight holds NaN or infinity"),
        (model_bin(QUANTISED, NO_SCALE), "decoder/embeddings/weight holds NaN or infinity"),
        (model_bin(variable("decoder/layer_0/self_attention/linear_0/weight", ONE, 0)), "3 projections cannot share"),
    ],
)
def test_what_is_not_a_whisper_model_is_one_line(tmp_path, content, message):
    source = tmp_path / "source"
    source.mkdir()
    if content is not None:
        (source / "model.bin").write_bytes(content)
    with pytest.raises(K2DError, match=message) as error:
        import_ctranslate2(source, tmp_path / "output")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture(scope="module")
def whole_file(tiny_whisper_dir, tmp_path_factory):
    folder = export_ctranslate2(tiny_whisper_dir, tmp_path_factory.mktemp("ct2") / "tiny")
    return (folder / "model.bin").read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_never_anything_else(whole_file, tmp_path, data):
    content = bytearray(whole_file)
    interesting = st.one_of(st.integers(0, 2000), st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[data.draw(interesting) :]
    else:
        content[data.draw(interesting)] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with suppress(K2DError):
        model = read_ctranslate2(path)
        weight_shapes(model, transformers_weights(model))
