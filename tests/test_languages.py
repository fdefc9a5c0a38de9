"""Languages as people write them, wherever one can be given; what is none is one line, or a recording left out."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import K2DDataCollator, K2DTrainingArguments, create_student, load_recipe
from k2d_hf.cli import main
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.labelling.teacher import LabellingReport, label_recordings
from k2d_hf.models import languages
from k2d_hf.models.languages import checked_language, is_language, language_code
from k2d_hf.transcription.transcribers import DecodingOptions

WRITTEN = {
    "zh": (
        *("zh", "ZH", "<|zh|>", "Chinese", "CHINESE", "chinese", "Mandarin", "Mandarin Chinese", "Chinese, Mandarin"),
        *("zh-TW", "zh_TW", "zh-Hant", "zh_Hant", "zh-Hant-TW", "zh_TW.UTF-8", "cmn", "cmn-Hans-CN", "zho", "chi"),
        *("Chinese (Traditional)", "Taiwanese Mandarin", "Chinese (China)", "中文", "國語", "普通话", " zh "),
    ),
    "yue": ("yue", "Cantonese", "Cantonese Chinese", "zh-yue", "粵語"),
    "en": ("en", "EN", "english", "English", "en-US", "en_GB", "eng", "English (United States)", "American English"),
    "pt": ("pt-BR", "Brazilian Portuguese"),
    "es": ("es-419", "castilian", "español"),
    "no": ("no", "nb", "nb-NO", "Norwegian"),
    "nn": ("nn", "nynorsk"),
    "jw": ("jw", "jv", "jav", "Javanese"),
    "he": ("he", "iw"),
    "tl": ("fil", "tl", "Filipino"),
    "ht": ("Haitian Creole", "haitian", "haitian creole"),
    "haw": ("haw",),
    None: (None, "", "  ", "auto", "und", "mul", "mixed"),
}
PAIRS = [(written, code) for code, several in WRITTEN.items() for written in several]
NONE = ["Chinglish", "zz", "xx", "chines", "cn", "Mandarin-English", "no-way", "not English", "1.00", "\ud800"]


@pytest.mark.parametrize(("written", "code"), PAIRS)
def test_a_language_is_known_however_it_is_written(written, code):
    assert checked_language(written) == language_code(written) == code
    assert written is None or is_language(written)


def test_every_language_of_whisper_is_known_by_code_and_name():
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    for name, code in TO_LANGUAGE_CODE.items():
        assert checked_language(name) == checked_language(name.title()) == code
    for code in LANGUAGES:
        assert checked_language(code) == checked_language(f"<|{code}|>") == checked_language(f"{code}-XX") == code
    assert languages._WHISPERS == LANGUAGES
    assert languages._CODE_BY_NAME == TO_LANGUAGE_CODE


@pytest.mark.parametrize("written", NONE)
def test_what_is_none_is_one_line(written):
    assert not is_language(written)
    with pytest.raises(K2DError, match="^language .* is unknown: ") as caught:
        checked_language(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("chines", r"did you mean Chinese \(zh\)\?"),
        ("cn", r"did you mean Chinese \(zh\)\?"),
        ("Englisch", r"did you mean English \(en\)"),
        ("Mandarin-English", "it names en and zh; give one of them"),
    ],
)
def test_what_is_written_alike_is_named(written, hint):
    with pytest.raises(K2DError, match=hint):
        checked_language(written)


# Wherever one can be given


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "in").mkdir()
    text = "name: x\nrecordings: in\nteacher: openai/whisper-base\nauxiliary: teacher\nlanguage: LANGUAGE\n"

    def read(written, **distil):
        lines = text.replace("LANGUAGE", written) + (f"distil: {json.dumps(distil)}\n" if distil else "")
        (tmp_path / "recipe.yaml").write_text(lines, encoding="utf-8")
        return load_recipe(tmp_path / "recipe.yaml")

    return read


@pytest.mark.parametrize("written", ["Chinese", "zh-TW", "'<|zh|>'", "EN"])
def test_a_recipe_takes_it(recipe, written):
    assert recipe(written).language == ("en" if written == "EN" else "zh")


def test_a_recipe_with_none_is_one_line_that_names_the_key(recipe):
    with pytest.raises(K2DError, match=r"recipe\.yaml: language: 'Chinglish' is unknown: give a code such as zh"):
        recipe("Chinglish")
    with pytest.raises(K2DError, match=r"recipe\.yaml: distil: language 'Chinglish' is unknown"):
        recipe("zh", language="Chinglish")


def test_arguments_options_collators_and_students_take_it(tiny_whisper, processor):
    assert K2DTrainingArguments(output_dir="x", use_cpu=True, language="Chinese").language == "zh"
    assert DecodingOptions(language="zh_Hant").language == "zh"
    assert K2DDataCollator(processor, language="Mandarin").language == "zh"
    assert create_student(tiny_whisper, language="Chinese").generation_config.language == "zh"
    for make in (
        lambda: K2DTrainingArguments(output_dir="x", use_cpu=True, language="Chinglish"),
        lambda: DecodingOptions(language="Chinglish"),
        lambda: K2DDataCollator(processor, language="Chinglish"),
        lambda: create_student(tiny_whisper, language="Chinglish"),
    ):
        with pytest.raises(K2DError, match="language 'Chinglish' is unknown"):
            make()


def test_chunks_that_name_it_otherwise_have_the_same_labels(processor):
    collator = K2DDataCollator(processor, timestamp_probability=0.0)
    chunk = {"recording": "a.wav", "start": 0.0, "duration": 1.0, "text": "好", "segments": []}
    expected = collator.example({**chunk, "language": "zh"})
    for written in ("Chinese", "zh-TW", "<|zh|>"):
        assert collator.example({**chunk, "language": written}) == expected


COMMANDS = [
    ["label", "in", "--teacher", "nowhere", "--output", "out"],
    ["validate", "in", "--auxiliary", "nowhere", "--output", "out"],
    ["student", "nowhere", "--output", "out"],
    ["evaluate", "nowhere", "--data", "in"],
    ["targets", "in", "--student", "nowhere", "--teacher", "nowhere", "--output", "out"],
    ["distil", "in", "--student", "nowhere", "--output", "out"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_finds_it_before_anything_else(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--language", "Chinglish"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "language 'Chinglish' is unknown" in line
    assert list(tmp_path.iterdir()) == []


# In manifests


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    languages = ["Chinese", "zh-TW", "<|en|>", "Klingon", None, "unclear"]
    for number in range(len(languages)):
        soundfile.write(f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(16000), 16000)
    rows = [{"audio": f"{n}.wav", "language": language, "text": "好"} for n, language in enumerate(languages)]
    Path("m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return "m.jsonl"


SCRIPT = {1.0: [(0.0, 1.0, "好")]}


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_transcribed_in_their_languages_and_a_row_of_none_is_skipped_by_name(manifest, streaming):
    recordings = load_recordings(manifest, streaming=streaming)
    assert [row["language"] for row in recordings] == ["Chinese", "zh-TW", "<|en|>", "Klingon", None, "unclear"]
    teacher, report = ScriptedTranscriber(SCRIPT), LabellingReport()
    chunks = label_recordings(recordings, teacher, report=report)
    assert teacher.languages == ["zh", "zh", "en", None]
    assert chunks["language"][:] == ["zh", "zh", "en", "en"]
    assert [(entry["recording"][-5:], entry["reason"]) for entry in report.skipped] == [
        ("3.wav", "unknown language"),
        ("5.wav", "unknown language"),
    ]
    assert "language 'Klingon' is unknown: give a code" in report.skipped[0]["detail"]


def test_the_language_that_is_given_for_all_overrides_them(manifest):
    report = LabellingReport()
    teacher = ScriptedTranscriber(SCRIPT, language="Chinese")
    assert len(label_recordings(load_recordings(manifest), teacher, report=report)) == 6
    assert report.skipped == []


def test_rows_that_come_from_elsewhere_are_read_likewise(manifest):
    recordings = Dataset.from_list([{"recording": "0.wav", "language": "Mandarin"}])
    teacher = ScriptedTranscriber(SCRIPT)
    label_recordings(recordings, teacher)
    assert teacher.languages == ["zh"]


def test_evaluation_names_what_it_skips(manifest):
    result = evaluate_model(ScriptedTranscriber(SCRIPT), load_recordings(manifest))
    assert (result.recordings, [entry["reason"] for entry in result.skipped]) == (4, ["unknown language"] * 2)
    assert evaluate_model(ScriptedTranscriber(SCRIPT, language="zh"), load_recordings(manifest)).recordings == 6
