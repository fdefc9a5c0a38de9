"""What `k2d export` writes: the student weight for weight, and a folder that faster-whisper transcribes with."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import WRITTEN
from tiny_whisper import make_tiny_whisper
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf import create_student
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.models import exporting
from k2d_hf.models.conversion import import_ctranslate2
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2

SHAPES = (
    *(
        "vocab_size",
        "num_mel_bins",
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
    ),
    *("encoder_attention_heads", "decoder_attention_heads", "max_source_positions", "max_target_positions"),
    *("tie_word_embeddings", "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"),
)
DECODING = (  # what the format carries: all but the default language and task
    *("alignment_heads", "suppress_tokens", "begin_suppress_tokens", "max_initial_timestamp_index", "max_length"),
    *("is_multilingual", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id", "decoder_start_token_id"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
LARGE_V3 = {"vocab_size": 51866, "mel_bins": 128}


def written(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def processor_of(processor, tmp_path):
    """The processor that fits a model: large-v3 has a language more."""

    def build(shape):
        if not shape:
            return processor
        source = tmp_path / "large-v3.json"
        tokenizer = json.loads(processor.tokenizer.backend_tokenizer.to_str())
        added = tokenizer["added_tokens"]
        at = next(index for index, token in enumerate(added) if token["content"] == "<|su|>") + 1
        later = [{**token, "id": token["id"] + 1} for token in added[at:]]
        new = {**added[at - 1], "content": "<|yue|>", "id": added[at]["id"]}
        tokenizer |= {"added_tokens": [*added[:at], new, *later], "post_processor": None}
        source.write_text(json.dumps(tokenizer), encoding="utf-8")
        from k2d_hf.models.conversion import save_processor

        shapes = {"vocab_size": 51866, "num_mel_bins": 128, "max_target_positions": 448, "max_source_positions": 1500}
        (tmp_path / "processor").mkdir()
        tokenizer = save_processor(source, tmp_path / "processor", shapes=shapes)
        return WhisperProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer)

    return build


def large_v3(model):
    """Give a model the ids of large-v3's vocabulary."""
    settings = model.generation_config
    settings.lang_to_id = {"<|en|>": 50259, "<|zh|>": 50260, "<|yue|>": 50358}
    settings.task_to_id = {"transcribe": 50360, "translate": 50359}
    settings.no_timestamps_token_id, settings.prev_sot_token_id = 50364, 50362
    return model


@pytest.mark.parametrize(
    ("layers", "shape", "neurons"),
    [([0, -1], {}, None), ([0], {}, None), ([3], {}, None), ([0, -1], LARGE_V3, None), (2, {}, 10)],
    ids=["two layers", "the first", "the last", "of large-v3", "with fewer neurons"],
)
def test_import_of_export_is_the_student(processor_of, tmp_path, layers, shape, neurons):
    teacher = make_tiny_whisper(**shape)
    student = create_student(large_v3(teacher) if shape else teacher, layers, encoder_neurons=neurons, language="zh")
    student.save_pretrained(tmp_path / "student")
    processor_of(shape).save_pretrained(tmp_path / "student")

    exported = export_ctranslate2(tmp_path / "student", tmp_path / "ct2", quantization="float32")
    back = WhisperForConditionalGeneration.from_pretrained(import_ctranslate2(exported, tmp_path / "back"))

    found, expected = back.state_dict(), student.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].equal(expected[name]), name
    assert back.proj_out.weight is back.model.decoder.embed_tokens.weight
    for name in SHAPES:
        assert getattr(back.config, name) == getattr(student.config, name), name
    settings, original = back.generation_config, student.generation_config
    for name in DECODING:
        assert getattr(settings, name) == getattr(original, name), name
    assert settings.lang_to_id.items() >= original.lang_to_id.items()


def test_an_untied_projection_comes_back_too(processor, tmp_path):
    import torch

    model = make_tiny_whisper()
    model.config.tie_word_embeddings = False
    model.proj_out.weight = torch.nn.Parameter(model.model.decoder.embed_tokens.weight.detach() + 1)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    back = WhisperForConditionalGeneration.from_pretrained(
        import_ctranslate2(export_ctranslate2(tmp_path / "model", tmp_path / "ct2"), tmp_path / "back")
    )
    assert back.proj_out.weight.equal(model.proj_out.weight)
    assert back.model.decoder.embed_tokens.weight.equal(model.model.decoder.embed_tokens.weight)


@pytest.fixture(scope="module")
def exported(workplace, tmp_path_factory):
    """What the command line makes of a student of two layers, in int8."""
    folder = tmp_path_factory.mktemp("export")
    student = create_student(WhisperForConditionalGeneration.from_pretrained(workplace / "teacher"), language="zh")
    student.save_pretrained(folder / "student")
    WhisperProcessor.from_pretrained(workplace / "teacher").save_pretrained(folder / "student")
    command = (
        "export",
        folder / "student",
        "--to",
        "ctranslate2",
        "--output",
        folder / "ct2",
        "--quantization",
        "int8",
    )
    assert main([str(part) for part in command]) == 0
    return folder / "ct2"


@pytest.fixture(scope="module")
def segments(exported):
    """What faster-whisper writes for 55 s, by the defaults, with word times."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(exported), device="cpu", compute_type="float32", cpu_threads=1)
    noise = np.random.default_rng(0).normal(0, 0.05, 55 * 16000).astype(np.float32)
    found, _ = model.transcribe(noise, language="zh", beam_size=1, temperature=0.0, word_timestamps=True)
    return list(found)


def test_faster_whisper_writes_the_text_of_the_student(exported, segments):
    assert [segment.text.strip() for segment in segments][:2] == list(WRITTEN)
    assert {path.name for path in exported.iterdir()} >= {"model.bin", "config.json", "tokenizer.json"}


def test_word_times_are_in_order_and_within_the_audio(segments):
    words = [word for segment in segments for word in segment.words]
    assert "".join(word.word for word in words if word.start < 20).count("machine") == 1
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 55


def test_alignment_heads_of_the_export_are_of_layers_that_are_there(exported):
    heads = written(exported, "config.json")["alignment_heads"]
    assert heads
    assert all(layer < 2 for layer, _ in heads)


def test_every_format_file_declares_a_choice(capsys):
    files = Path(exporting.__file__).parent.joinpath("exports").glob("*_format.py")
    assert len(list(files)) == len(exporting.export_formats())
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, form in exporting.export_formats().items():
        assert name in shown
        assert f"{form.title}, which" in shown
        assert all(number_format in shown for number_format in form.quantizations)


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ("{student} --output {new}", 2, "k2d: the following arguments are required: --to"),
        ("{student} --to onnx --output {new}", 2, "k2d: argument --to: invalid choice: 'onnx'"),
        ("{student} --to ctranslate2 --output {new} --quantization int4", 1, "k2d: quantization 'int4': not one of"),
        (
            "{student} --to ggml --output {new} --quantization f32",
            1,
            "k2d: quantization 'f32': not one of f16, q8_0, q5_0",
        ),
        ("{student} --to ctranslate2 --output {student}", 1, "already there and not empty; choose another output"),
        ("nowhere --to ctranslate2 --output {new}", 1, "k2d: model nowhere: no such folder, and not a Hub id"),
    ],
)
def test_a_wrong_command_is_one_line(tiny_whisper_dir, tmp_path, capsys, arguments, status, line):
    words = arguments.format(student=tiny_whisper_dir, new=tmp_path / "new").split()
    try:
        found = main(["export", *words])
    except SystemExit as stop:
        found = stop.code
    errors = capsys.readouterr().err
    assert found == status
    assert line in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_pickled_weights_are_not_exported(tiny_whisper, processor, tmp_path):
    import torch

    tiny_whisper.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    torch.save(tiny_whisper.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(K2DError, match="not a complete checkpoint, no weights as safetensors"):
        export_ctranslate2(tmp_path, tmp_path / "ct2")
