"""The file for whisper.cpp, read back by a parser of its own: sizes, filters, vocabulary, every tensor of a checkpoint."""

import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_whisper import WHISPER_BASE, make_tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from k2d_hf import create_student, export_ggml
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.models.sources import resolve_checkpoint

FILE = "ggml-model.bin"
PYWHISPERCPP = importlib.util.find_spec("pywhispercpp") is not None
NAMES = {  # of whisper.cpp, by those of transformers
    **{"encoder_attn_layer_norm": "cross_attn_ln", "self_attn_layer_norm": "attn_ln", "final_layer_norm": "mlp_ln"},
    **{"encoder_attn": "cross_attn", "self_attn": "attn", "fc1": "mlp.0", "fc2": "mlp.2", "layers": "blocks"},
    **{"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out", "embed_tokens": "token_embedding"},
}


def name_in_file(name):
    part, *rest = name.removeprefix("model.").split(".")
    if rest[0] == "layer_norm":
        return ".".join([part, "ln_post" if part == "encoder" else "ln", *rest[1:]])
    if rest[0] == "embed_positions":
        return f"{part}.positional_embedding"
    return ".".join([part, *(NAMES.get(one, one) for one in rest)])


def q8_0(block):
    return np.frombuffer(block, "i1", 32, 2) * np.float64(np.frombuffer(block, "<f2", 1)[0])


def q5_0(block):
    fifth, low = int.from_bytes(block[2:6], "little"), np.frombuffer(block, np.uint8, 16, 6)
    numbers = [int(byte) & 15 for byte in low] + [int(byte) >> 4 for byte in low]
    numbers = [number + 16 * (fifth >> at & 1) for at, number in enumerate(numbers)]
    return (np.array(numbers) - 16) * np.float64(np.frombuffer(block, "<f2", 1)[0])


BLOCKS = {8: (34, q8_0, 127), 6: (22, q5_0, 16)}


class Parsed:
    """A file of the format, as whisper.cpp reads it."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 0
        assert self.numbers("i", 1) == (0x67676D6C,)
        *self.sizes, self.file_type = self.numbers("i", 11)
        shape = self.numbers("i", 2)
        self.filters = np.array(self.numbers("f", shape[0] * shape[1]), np.float32).reshape(shape)
        self.tokens = [self.take(*self.numbers("i", 1)) for _ in range(*self.numbers("i", 1))]
        self.tensors = {}
        while self.at < len(self.data):
            self.tensor()

    def take(self, size):
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def numbers(self, kind, count):
        return struct.unpack(f"<{count}{kind}", self.take(4 * count))

    def tensor(self):
        dimensions, length, kind = self.numbers("i", 3)
        shape = tuple(reversed(self.numbers("i", dimensions)))
        name, count = self.take(length).decode(), int(np.prod(shape))
        if kind < 2:
            values = np.frombuffer(self.take(count * (4, 2)[kind]), ("<f4", "<f2")[kind])
        else:
            size, read, _ = BLOCKS[kind]
            assert shape[-1] % 32 == 0
            stored = self.take(count // 32 * size)
            values = np.concatenate([read(stored[at : at + size]) for at in range(0, len(stored), size)])
        assert name not in self.tensors
        self.tensors[name] = (kind, values.reshape(shape))


def filled(values, shape):
    """With zeros at the end of each dimension."""
    return np.pad(values, [(0, to - size) for size, to in zip(values.shape, shape, strict=True)])


def check_tensors(parsed, model, kind):
    """Every tensor of `model` is in the file once: exact in float32 and float16, else within half a step."""
    state = {name_in_file(name): one for name, one in model.state_dict().items() if name != "proj_out.weight"}
    assert parsed.tensors.keys() == state.keys()
    for name, (found_kind, found) in parsed.tensors.items():
        values = state[name].float().numpy()
        vector = values.ndim == 1 or name.endswith("positional_embedding")
        assert found_kind == (0 if vector else 1 if values.ndim == 3 else kind), name
        if name.endswith(("conv1.bias", "conv2.bias")):
            values = values[:, None]
        width = model.config.d_model
        if ".mlp." in name:
            values = filled(
                values, [4 * width if size != width or name.endswith("0.bias") else size for size in values.shape]
            )
        assert found.shape == values.shape, name
        if found_kind < 2:
            assert np.array_equal(found, values.astype(found.dtype)), name
            continue
        levels = BLOCKS[found_kind][2]
        blocks, read = (one.reshape(-1, 32) for one in (values.astype(np.float64), found))
        steps = np.abs(blocks).max(axis=1, keepdims=True) / levels
        error = np.abs(read - blocks)
        if found_kind == 6:  # it has 16 steps on one side, 15 on the other
            far = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)][:, None]
            error = np.where(blocks * -np.sign(far) > 15.5 * steps, error - steps / 2, error)
        # the step itself is in float16
        assert (error <= steps * (0.5 + levels * 2.0**-11) + 1e-7).all(), name


def save(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student(processor, tmp_path_factory):
    """The folder of a student of two layers, and the model in it."""
    model = create_student(make_tiny_whisper(d_model=64), 2, language="zh")
    folder = save(tmp_path_factory.mktemp("ggml") / "student", model, processor)
    return folder, WhisperForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize(
    ("quantization", "kind", "file_type"), [(None, 1, 1), ("f16", 1, 1), ("q8_0", 8, 2007), ("q5_0", 6, 2008)]
)
def test_every_tensor_of_the_student_is_in_the_file(student, tmp_path, quantization, kind, file_type):
    folder, model = student
    parsed = Parsed(export_ggml(folder, tmp_path / "ggml", quantization=quantization) / FILE)
    assert parsed.sizes == [51865, 1500, 64, 2, 2, 448, 64, 2, 2, 80]
    assert parsed.file_type == file_type
    check_tensors(parsed, model, kind)


def test_tokens_and_filters_are_the_students(student, processor, tmp_path):
    parsed = Parsed(export_ggml(student[0], tmp_path / "ggml") / FILE)
    decoder = processor.tokenizer.backend_tokenizer.decoder
    known = {index: token for token, index in processor.tokenizer.get_vocab().items() if index < 50257}
    assert len(parsed.tokens) == len(known) == 50257
    for index in (*range(256), *range(256, 50257, 97)):
        assert parsed.tokens[index].decode(errors="replace") == decoder.decode([known[index]]), index
    assert parsed.filters.shape == (80, 201)
    assert np.array_equal(parsed.filters, processor.feature_extractor.mel_filters.T.astype(np.float32))


@pytest.fixture
def other_processor(processor):
    """Write the processor of another vocabulary and number of mel bins to a folder."""

    def write(folder, vocab_size, mel_bins):
        processor.save_pretrained(folder)
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        added, shift = tokenizer["added_tokens"], vocab_size - 51865
        if shift < 0:  # English alone has a plain token less
            vocabulary = tokenizer["model"]["vocab"]
            last = next(token for token, index in vocabulary.items() if index == 50256)
            del vocabulary[last]
            merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
            tokenizer["model"]["merges"] = [one for one in merges if one.replace(" ", "") != last]
            vocabulary |= {token: index - 1 for token, index in vocabulary.items() if index > 50256}
        moved = [
            {**token, "id": token["id"] + shift if shift < 0 or token["id"] > 50357 else token["id"]} for token in added
        ]
        if shift > 0:
            moved.append({**added[-1], "content": "<|yue|>", "id": 50358})
        tokenizer |= {"added_tokens": sorted(moved, key=lambda token: token["id"]), "post_processor": None}
        path.write_text(json.dumps(tokenizer), encoding="utf-8")
        for name in ("vocab.json", "merges.txt", "added_tokens.json", "processor_config.json"):
            (folder / name).unlink(missing_ok=True)
        WhisperFeatureExtractor(feature_size=mel_bins).save_pretrained(folder)

    return write


@pytest.mark.parametrize(
    ("vocab_size", "mel_bins", "plain"),
    [(51864, 80, 50256), (51865, 128, 50257), (51866, 80, 50257), (51866, 128, 50257)],
)
def test_the_other_vocabularies_and_128_mel_bins(other_processor, tmp_path, vocab_size, mel_bins, plain):
    model = make_tiny_whisper(vocab_size=vocab_size, mel_bins=mel_bins)
    model.save_pretrained(tmp_path / "model")
    other_processor(tmp_path / "model", vocab_size, mel_bins)
    parsed = Parsed(export_ggml(tmp_path / "model", tmp_path / "ggml") / FILE)
    assert [parsed.sizes[0], parsed.sizes[-1], len(parsed.tokens)] == [vocab_size, mel_bins, plain]
    assert parsed.filters.shape == (mel_bins, 201)
    check_tensors(parsed, model, 1)


def test_the_same_student_makes_the_same_bytes_however_its_weights_are_cut(student, processor, tmp_path):
    folder, model = student
    model.save_pretrained(tmp_path / "cut", max_shard_size="2MB")
    processor.save_pretrained(tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    files = [export_ggml(one, tmp_path / f"{at}") / FILE for at, one in enumerate((folder, folder, tmp_path / "cut"))]
    assert len({file.read_bytes() for file in files}) == 1


def test_weights_in_bfloat16_are_exported(student, processor, tmp_path):
    import torch

    model = WhisperForConditionalGeneration.from_pretrained(student[0], dtype=torch.bfloat16)
    folder = save(tmp_path / "half", model, processor)
    check_tensors(Parsed(export_ggml(folder, tmp_path / "ggml") / FILE), model, 1)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_type": "bart"}, "a 'bart' model, not Whisper"),
        ({"vocab_size": 50000}, "a vocabulary of 50000; whisper.cpp reads those of 51864, 51865, 51866"),
        ({"vocab_size": 51864}, "a tokenizer of 50257 plain tokens for a vocabulary of 51864"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False; whisper.cpp reads models with True only"),
        ({"encoder_ffn_dim": 1000}, "encoder_ffn_dim is 1000; whisper.cpp reads at most 256"),
        ({"num_mel_bins": 128}, "a feature extractor of 80 mel bins for a model of 128"),
        ({"decoder_layers": 3}, "its weights lack decoder.layers.2.self_attn_layer_norm.weight"),
        ({"max_target_positions": 440}, "decoder.embed_positions.weight has shape (448, 64), and (440, 64) in its"),
        ({"d_model": None}, "d_model is None, not a number"),
    ],
)
def test_a_model_that_whisper_cpp_does_not_hold_is_one_line(student, tmp_path, changes, line):
    for file in student[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(K2DError) as raised:
        export_ggml(tmp_path, tmp_path / "ggml")
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not [path for path in tmp_path.iterdir() if "ggml" in path.name]


def test_numbers_beyond_float16_are_one_line(student, processor, tmp_path):
    import torch

    model = WhisperForConditionalGeneration.from_pretrained(student[0])
    with torch.no_grad():
        model.model.decoder.layers[1].fc2.weight[3, 5] = 1e5
    save(tmp_path / "model", model, processor)
    with pytest.raises(K2DError, match=r"decoder.layers.1.fc2.weight holds numbers that are not finite in f16"):
        export_ggml(tmp_path / "model", tmp_path / "ggml")


def test_an_adapter_alone_is_one_line(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert main(["export", str(tmp_path / "adapter"), "--to", "ggml", "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("k2d: ")
    assert "adapter" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("layers", "warnings"), [(2, 1), (3, 0)])
def test_a_student_that_gets_no_timestamps_is_named(processor, tmp_path, caplog, layers, warnings):
    save(tmp_path / "student", create_student(make_tiny_whisper(), layers, language="zh"), processor)
    export_ggml(tmp_path / "student", tmp_path / "ggml")
    assert [record.message.count("two decoder layers without timestamps") for record in caplog.records] == [
        1
    ] * warnings


@pytest.mark.skipif(not PYWHISPERCPP, reason="needs pywhispercpp, a build of whisper.cpp")
@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_whisper_cpp_writes_the_text_of_the_model(tmp_path, quantization):
    from k2d_hf.audio.reader import read_audio
    from k2d_hf.models.checkpoint import load_checkpoint
    from k2d_hf.models.processors import load_processor
    from k2d_hf.scoring.error_rates import count_errors
    from k2d_hf.scoring.text import mixed_tokens

    root = Path(__file__).resolve().parents[2]
    sound = read_audio(root / "recipes/quickstart/dev/dev_000.opus", start=51.7, duration=15.3).astype(np.float32)
    checkpoint = resolve_checkpoint([WHISPER_BASE])
    model, processor = load_checkpoint(checkpoint), load_processor(checkpoint.path)
    features = processor.feature_extractor(sound, sampling_rate=16000, return_tensors="pt").input_features
    ids = model.generate(features, language="zh", task="transcribe", return_timestamps=True, num_beams=1)
    expected = processor.batch_decode(ids, skip_special_tokens=True)[0]
    export_ggml(checkpoint.path, tmp_path / "ggml", quantization=quantization)
    np.save(tmp_path / "sound.npy", sound)
    script = root / "tests" / "compat" / "in_whisper_cpp.py"
    command = [sys.executable, str(script), str(tmp_path / "ggml" / FILE), str(tmp_path / "sound.npy")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    (found,) = json.loads(done.stdout.splitlines()[-1])["texts"]
    counts = count_errors(mixed_tokens(expected), mixed_tokens(found))
    assert counts.substitutions + counts.deletions + counts.insertions <= 0.05 * counts.reference_length
