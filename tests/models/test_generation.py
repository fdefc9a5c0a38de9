"""Teachers of all ages: languages, tasks and timestamps come from the tokenizer where their settings have none."""

import copy
import json
import logging
import shutil
from functools import partial
from importlib import resources

import numpy as np
import pytest
from scripted_whisper import write_scripted_whisper
from student_layout import GENERATION, check_settings, json_of
from tiny_whisper import WHEEL_WITH_TOKENIZER, make_tiny_whisper
from transformers import GenerationConfig, WhisperForConditionalGeneration

from k2d_hf import create_student
from k2d_hf.cli import main
from k2d_hf.models import load_whisper
from k2d_hf.models.checkpoint import open_whisper
from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2
from k2d_hf.models.generation import complete_generation_config, generation_fields, generation_gaps
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions

FORCED = [[1, 50260], [2, 50358], [3, 50363]]  # <|zh|>, <|translate|>, <|notimestamps|>
EARLY = {
    "forced_decoder_ids": FORCED,
    "suppress_tokens": [7, 8],
    "begin_suppress_tokens": [220, 50257],
    "max_length": 448,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def teacher(tiny_whisper_dir, tmp_path):
    """A checkpoint whose settings a test may age: None takes a file or a field away."""

    def aged(generation=(), config=(), *, source=tiny_whisper_dir):
        folder = shutil.copytree(source, tmp_path / "teacher")
        for name, changes in (("generation_config.json", generation), ("config.json", config)):
            if changes is None:
                (folder / name).unlink()
                continue
            values = {**json_of(folder / name), **dict(changes)}
            kept = {key: value for key, value in values.items() if not (key in dict(changes) and value is None)}
            (folder / name).write_text(json.dumps(kept), encoding="utf-8")
        return folder

    return aged


def gone(*names):
    return dict.fromkeys(names)


OLD = gone(
    "lang_to_id", "task_to_id", "no_timestamps_token_id", "is_multilingual", "prev_sot_token_id", "alignment_heads"
)
AGES = {
    "none is missing": ({}, {}),
    "no languages, tasks or timestamps": (OLD, {}),
    "nothing of Whisper's own": (gone(*GENERATION, "alignment_heads", "max_initial_timestamp_index"), {}),
    "no file, and all in config.json": (None, EARLY),
    "no file, and nothing in config.json": (None, {}),
    "forced ids in the file": ({**OLD, "forced_decoder_ids": FORCED}, {}),
    "forced ids in both": ({"forced_decoder_ids": [[1, None], [2, 50359]]}, EARLY),
    "a language as a name": ({**OLD, "language": "Chinese", "task": "transcribe"}, {}),
    "null for what is not there": ({"suppress_tokens": None, "begin_suppress_tokens": None, "max_length": None}, {}),
}


@pytest.mark.parametrize("age", list(AGES)[1:5])
def test_a_student_has_language_and_timestamps_however_old_its_teacher(teacher, tmp_path, age):
    folder = teacher(*AGES[age])
    output = tmp_path / "student"
    assert main(["student", str(folder), "--language", "zh", "--output", str(output), "--quiet"]) == 0
    check_settings(output)
    saved = json_of(output / "generation_config.json")
    assert (saved["language"], saved["task"]) == ("zh", "transcribe")
    assert all(0 <= layer < 2 for layer, _ in saved["alignment_heads"])
    student = open_whisper(output, dtype=load_whisper(output).dtype)
    features = student.model.encoder.conv1.weight.new_zeros(1, 80, 3000)
    options = {
        "max_new_tokens": 3,
        "return_timestamps": True,
        "return_dict_in_generate": True,
        "force_unique_generate_call": True,
    }
    ids = student.generate(features, **options).sequences[0].tolist()
    assert ids[:3] == [50258, 50260, 50359]  # and no <|notimestamps|>
    ids = student.generate(features, **{**options, "return_timestamps": False, "language": "en", "task": "translate"})
    assert ids.sequences[0].tolist()[:4] == [50258, 50259, 50358, 50363]


@pytest.mark.parametrize("name", [*sorted(GENERATION), *AGES])
def test_whatever_is_missing_is_built(teacher, name):
    changes, early = AGES.get(name, (gone(name), {}))
    settings = load_whisper(teacher(changes, early)).generation_config
    assert generation_gaps(settings) == []
    whole = {"no_timestamps_token_id": 50363, "prev_sot_token_id": 50361, "is_multilingual": True, "max_length": 448}
    assert {name: getattr(settings, name) for name in whole} == whole
    assert (settings.begin_suppress_tokens, settings.lang_to_id["<|zh|>"]) == ([220, 50257], 50260)
    assert settings.task_to_id == {"transcribe": 50359, "translate": 50358}


def test_what_is_built_is_what_openai_ships(processor):
    """Against what lies beside OpenAI's base in the package index, converted by somebody else."""
    shipped = json.loads((resources.files(WHEEL_WITH_TOKENIZER) / "data" / "config.json").read_text(encoding="utf-8"))
    built = generation_fields(processor.tokenizer, max_length=448)
    assert built["suppress_tokens"] == shipped["suppress_ids"]
    assert built["begin_suppress_tokens"] == shipped["suppress_ids_begin"]
    assert sorted(built["lang_to_id"].values()) == sorted(shipped["lang_ids"])


def test_an_english_only_model_has_no_language(english_processor):
    fields = generation_fields(english_processor.tokenizer, max_length=448)
    assert (fields["is_multilingual"], fields["no_timestamps_token_id"]) == (False, 50362)
    assert not {"lang_to_id", "task_to_id"} & fields.keys()
    assert fields["begin_suppress_tokens"] == [220, 50256]
    model = make_tiny_whisper(vocab_size=51864)
    model.generation_config = GenerationConfig(forced_decoder_ids=[[1, 50362]])
    settings = complete_generation_config(model, lambda: english_processor.tokenizer).generation_config
    assert settings.forced_decoder_ids is None
    assert generation_gaps(settings) == []


@pytest.mark.parametrize(
    ("generation", "config", "language", "task"),
    [
        (None, {"forced_decoder_ids": FORCED}, "zh", "translate"),
        ({"forced_decoder_ids": FORCED}, {}, "zh", "translate"),
        ({"forced_decoder_ids": [[1, None], [2, 50359]]}, {"forced_decoder_ids": FORCED}, None, "transcribe"),
        ({"forced_decoder_ids": FORCED, "language": "<|en|>", "task": "transcribe"}, {}, "<|en|>", "transcribe"),
        ({}, {}, None, None),
    ],
)
def test_what_was_forced_is_named(teacher, generation, config, language, task):
    model = load_whisper(teacher(generation, config))
    settings = model.generation_config
    assert (getattr(settings, "language", None), getattr(settings, "task", None)) == (language, task)
    assert settings.forced_decoder_ids is None
    assert getattr(model.config, "forced_decoder_ids", None) is None


def test_what_a_checkpoint_says_itself_stays(teacher):
    own = {"suppress_tokens": [], "begin_suppress_tokens": [5], "max_length": 225, "lang_to_id": {"<|zh|>": 50260}}
    settings = load_whisper(teacher({**own, "is_multilingual": None})).generation_config
    assert {name: getattr(settings, name) for name in own} == own
    assert settings.is_multilingual


@pytest.mark.parametrize("early", [{"suppress_tokens": []}, {"suppress_tokens": [7], "begin_suppress_tokens": [8]}])
def test_what_config_json_suppresses_moves(teacher, early):
    model = load_whisper(teacher(gone("suppress_tokens", "begin_suppress_tokens"), early))
    expected = {"begin_suppress_tokens": [220, 50257], **early}
    assert {name: getattr(model.generation_config, name) for name in expected} == expected
    assert not any(getattr(model.config, name) for name in expected)


@pytest.mark.parametrize(
    ("engine", "age"),
    [("transformers", "nothing of Whisper's own"), ("faster-whisper", "no file, and all in config.json")],
)
def test_an_old_teacher_labels(teacher, processor, tmp_path, age, engine):
    folder = teacher(*AGES[age], source=write_scripted_whisper(tmp_path / "scripted", processor, (2.0, "好")))
    options = DecodingOptions(language="zh", beam_size=1, temperatures=(0.0,))
    transcriber = open_transcriber(folder, options, engine=engine)
    sound = np.random.default_rng(0).normal(0, 0.05, 3 * 16000).astype(np.float32)
    transcript = transcriber.transcribe([sound])[0]
    assert (transcript.language, transcript.segments[0].text.strip()) == ("zh", "好")


def test_a_model_in_memory_takes_the_tokenizer_that_it_is_given(tiny_whisper, processor, caplog):
    whole = copy.deepcopy(tiny_whisper.generation_config)
    for name in OLD:
        delattr(tiny_whisper.generation_config, name)
    student = partial(create_student, tiny_whisper, 2, language="zh")
    assert student().generation_config.lang_to_id["<|de|>"] == 50261  # by the folder that it was loaded from
    tiny_whisper.config.name_or_path = ""
    with caplog.at_level(logging.WARNING):
        built = student(tokenizer=processor.tokenizer).generation_config
        assert caplog.text == ""
        assert (built.no_timestamps_token_id, built.language) == (whole.no_timestamps_token_id, "zh")
        student()
    assert "the teacher's generation config has no no_timestamps_token_id, is_multilingual, prev_sot" in caplog.text
    assert not hasattr(tiny_whisper.generation_config, "lang_to_id")  # the teacher is left as it is


def test_a_trainer_completes_what_it_is_given(tiny_whisper, noise_file, processor, tmp_path):
    from datasets import Dataset
    from distillation.tiny_training import trainer_for

    for name in OLD:
        delattr(tiny_whisper.generation_config, name)
    row = {"recording": str(noise_file), "start": 0.0, "duration": 3.0, "text": "好", "previous_text": None}
    row |= {"segments": [{"start": 0.0, "end": 3.0, "text": "好"}], "language": "zh", "keep": True}
    settings = {"teacher_model": copy.deepcopy(tiny_whisper)}
    trainer_for(tiny_whisper, Dataset.from_list([row]), processor, tmp_path, **settings).save_model(
        str(tmp_path / "saved")
    )
    check_settings(tmp_path / "saved")
    assert json_of(tmp_path / "saved" / "generation_config.json")["language"] == "zh"


def test_the_export_of_an_old_checkpoint_suppresses_what_it_should(teacher):
    settings = json_of(
        CTRANSLATE2.cached(teacher(gone("suppress_tokens", "begin_suppress_tokens"), {})) / "config.json"
    )
    assert settings["suppress_ids"][-1] == 50362
    assert settings["suppress_ids_begin"] == [220, 50257]
    assert settings["lang_ids"]


def test_a_model_that_lacks_nothing_needs_no_tokenizer(tiny_whisper):
    def none():
        raise AssertionError

    complete_generation_config(tiny_whisper, none)
    assert isinstance(tiny_whisper, WhisperForConditionalGeneration)
