"""Several test sets: names, files of figures, averages, the text for a terminal, what is measured again, the command."""

import json

import numpy as np
import pytest
import soundfile
from conftest import WRITTEN
from datasets import Dataset

from k2d_hf import EvaluationSet, evaluate_model, evaluate_sets, load_recipe
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.sets import UNNAMED, figures_of_sets, file_of_sets, macro_averages
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.evaluation.table import render_sets
from k2d_hf.evaluation.timing import transcribe_in_turns
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.pipeline.recipe import EvaluationDataSettings
from k2d_hf.pipeline.run_state import Job
from k2d_hf.pipeline.stages.evaluate import evaluate
from k2d_hf.terminal.bars import bars
from k2d_hf.terminal.console import Console
from k2d_hf.terminal.screen import Screen, columns_of

RECIPE = "name: x\nrecordings: {folder}/dev.jsonl\nteacher: a/b\nauxiliary: teacher\nlanguage: zh\nevaluation: "
FIGURES = {
    "mer": 0.25, "zh_cer": 0.2, "en_wer": None, "substitutions": 12345, "deletions": 1234, "insertions": 123,
    "looping_outputs": 12, "rtf": 0.0123, "parameters": 1_543_490_560, "recordings": 12, "audio_seconds": 7200.0,
    "language": "zh", "measurement": {"id": "one"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sets of one recording: `dev` and `en` have the same sound, `other` another."""
    folder = tmp_path_factory.mktemp("sets")
    for name, seconds, reference in (
        ("dev", 3, " ".join(WRITTEN)),
        ("other", 4, WRITTEN[1]),
        ("en", 3, "It's machine learning, uh!"),
    ):
        noise = np.random.default_rng(seconds).normal(0, 0.05, seconds * 16000)
        soundfile.write(folder / f"{name}.wav", noise, 16000)
        row = {"audio": f"{name}.wav", "reference": reference}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "bare.jsonl").write_text('{"audio": "dev.wav"}\n', encoding="utf-8")
    return folder


# In a recipe


def recipe_of(folder, evaluation, *sets):
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder) + evaluation, encoding="utf-8")
    return load_recipe(folder / "recipe.yaml", sets)


def test_a_recipe_has_one_set_or_several_by_name(folder):
    (one,) = recipe_of(folder, "dev.jsonl").evaluation_sets.items()
    assert one == (UNNAMED, EvaluationDataSettings(str(folder / "dev.jsonl")))
    recipe = recipe_of(
        folder,
        "{ascend: dev.jsonl, 2021: {source: other.jsonl, join_by: talk, language: Chinese}}",
        "evaluation.en.source=en.jsonl",
    )
    assert recipe.evaluation_sets == {
        "ascend": EvaluationDataSettings(str(folder / "dev.jsonl")),
        "2021": EvaluationDataSettings(str(folder / "other.jsonl"), join_by="talk", language="zh"),
        "en": EvaluationDataSettings(str(folder / "en.jsonl")),
    }
    recipe.write(folder / "written.yaml")
    assert load_recipe(folder / "written.yaml").evaluation == recipe.evaluation
    assert recipe_of(folder, "null").evaluation_sets == {}


@pytest.mark.parametrize(
    ("evaluation", "line"),
    [
        ("{a: dev.jsonl, b: nowhere.jsonl}", "evaluation.b: 'nowhere.jsonl' does not exist, neither beside the recipe nor from here"),
        ("{a: dev.jsonl, b: {splt: test}}", "evaluation.b.splt: no such setting; did you mean split?"),
        ("{a: {language: en}}", "evaluation.a.source: missing; give a folder of audio, "),
        ("{a: 3}", "evaluation.a: 3 is not text; put it in quotes"),
        ("{a: {source: dev.jsonl, normaliser: whisper}}", "evaluation.a.normaliser: 'whisper' is none of mixed, whisper-english"),
        ("{a: {source: dev.jsonl, normaliser: whisper-english}}", "evaluation.a.normaliser: whisper-english is for English, and the language of the set is zh; leave it out, or set evaluation.a.language to en"),
        ("{source: dev.jsonl, normaliser: whisper-english}", "evaluation.normaliser: whisper-english is for English, and the language of the set is zh; leave it out, or set evaluation.language to en"),
        ("{a: {source: dev.jsonl, language: klingon}}", "evaluation.a.language: 'klingon'"),
        ("{a: {source: dev.jsonl, streaming: true}}", "evaluation.a.streaming: evaluation holds its recordings; leave it out"),
        ("{a: {source: dev.jsonl, benchmark_task: t}}", "evaluation.a.benchmark_task: "),
        ("{a/b: dev.jsonl}", "evaluation: 'a/b' cannot be the name of a set, and of its files: letters, digits, dots"),
        ("{'': dev.jsonl}", "evaluation: '' cannot be the name of a set"),
        ("{..: dev.jsonl}", "evaluation: '..' cannot be the name of a set"),
        ("{dev: dev.jsonl, Dev: other.jsonl}", "evaluation: dev and Dev are one name to some file systems; rename one"),
        ("{sorce: dev.jsonl}", "evaluation: sorce: no such setting, and too near to one for the name of a set; did you mean source?"),
        ("{sorce: dev.jsonl, split: test}", "evaluation.sorce: no such setting; did you mean source?"),
        ("{split: test}", "evaluation.source: missing"),
        ("{}", "evaluation.source: missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_set_is_one_line_before_any_work(folder, evaluation, line):
    with pytest.raises(K2DError) as raised:
        recipe_of(folder, evaluation)
    assert str(raised.value).startswith(f"{folder / 'recipe.yaml'}: {line}")
    assert "\n" not in str(raised.value)


# Figures of several sets


def test_one_set_without_a_name_has_the_file_that_it_always_had():
    one, several = {UNNAMED: {"teacher": {"mer": 1}}}, {"a": {"teacher": {"mer": 1}}}
    assert file_of_sets(one) == {"teacher": {"mer": 1}}
    assert file_of_sets(several) == {"sets": several}
    assert [figures_of_sets(file_of_sets(sets)) for sets in (one, several)] == [one, several]
    assert figures_of_sets({"sets": {"mer": 1}}) == {UNNAMED: {"sets": {"mer": 1}}}  # a model of that name
    assert figures_of_sets({}) == {}


def of_set(teacher, student, **changes):
    return {"teacher": {**FIGURES, "mer": teacher, **changes}, "student": {**FIGURES, "mer": student, **changes}}


def test_averages_are_of_sets_of_one_language_and_normaliser_and_count_each_set_once():
    sets = {
        "long": of_set(0.1, 0.2, reference_length=10_000),
        "short": of_set(0.3, 0.6, reference_length=10),
        "libri": of_set(0.5, 0.5, language="en", normaliser="whisper-english", wer=0.2),
        "en": of_set(0.5, 0.5, language="en"),
    }
    (average,) = macro_averages(sets)
    assert (average.sets, average.language, average.wer) == (["long", "short"], "zh", {})
    assert average.mer == pytest.approx({"teacher": 0.2, "student": 0.4})
    sets["libri 2"] = of_set(0.5, 0.5, language="en", normaliser="whisper-english", wer=0.3)
    assert macro_averages(sets)[1].wer == pytest.approx({"teacher": 0.25, "student": 0.25})
    sets["before"] = {**of_set(0.1, 0.1), "student_before": FIGURES}
    assert macro_averages(sets)[0].sets == ["long", "short"]  # with the same models
    assert macro_averages({UNNAMED: of_set(0.1, 0.1)}) == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_each_set_has_its_table_and_chart_and_all_stay_in_their_terminal(width):
    sets = {
        "ascend": {**of_set(0.25, 0.15), "student_before": FIGURES},
        "ntuml2021": {**of_set(0.15, 0.25), "student_before": FIGURES},
        "libri": of_set(0.5, 0.5, language="en", normaliser="whisper-english", wer=0.2),
    }
    shown = render_sets(sets, Screen(width))
    assert max(map(columns_of, shown.splitlines())) <= width
    for line in (
        "ascend: 12 recordings, 2.0 h, language zh",
        "macro average of ascend and ntuml2021 (language zh), each set counted once",
    ):
        assert line in shown or width == 40
    lines = shown.splitlines()
    charted = [line.split() for line in lines if "█" in line]
    assert [words[-1] for words in charted] == ["25.0", "15.0", "25.0", "15.0", "25.0", "25.0", "20.0", "20.0"]
    assert [lines[at - 1] for at, line in enumerate(lines) if "█" in line][::3] == ["MER %", "MER %", "WER %"]
    assert render_sets({UNNAMED: sets["ascend"]}, Screen(width)).count("█") == 0


def test_bars_are_as_long_as_their_numbers():
    rows = [("a", 0.4, "40"), ("學生", 0.1, "10"), ("none", 0.0, "0")]
    assert bars(rows, Screen(27)).splitlines() == ["a     " + "█" * 18 + " 40", "學生  ████ 10", "none   0"]
    assert bars([("a", 0.0, "0")], Screen(27)) == "a   0"
    assert bars(rows[:1], Screen(12, "latin-1")) == "a  ###### 40"


# Measuring


@pytest.fixture
def measure(workplace, tmp_path, monkeypatch):
    """Figures of a teacher on sets, and how many recordings it was given."""
    given = []

    def counted(transcribers, recordings, *args, **kwargs):
        given.append(len(recordings))
        return transcribe_in_turns(transcribers, recordings, *args, **kwargs)

    monkeypatch.setattr("k2d_hf.evaluation.evaluate.transcribe_in_turns", counted)

    def measure(**sets):
        given.clear()
        figures = evaluate(
            {"teacher": Checkpoint(workplace / "teacher", name="teacher", origin="local")},
            sets,
            EvaluateSettings(beam_size=1),
            Job(
                Console(silent=True).progress("evaluate"), output=tmp_path / "figures.json", resume=tmp_path / "resume"
            ),
        )
        return figures, sum(given)

    return measure


def recordings_of(folder, name):
    row = json.loads((folder / f"{name}.jsonl").read_text(encoding="utf-8"))
    return Dataset.from_list(
        [{"recording": str(folder / row["audio"]), "reference": row["reference"], "language": None}]
    )


def test_a_new_set_alone_is_measured_and_what_is_gone_is_forgotten(measure, folder, tmp_path):
    dev, other = (EvaluationSet(recordings_of(folder, name), "zh") for name in ("dev", "other"))
    first, given = measure(dev=dev)
    assert given == 1
    both, given = measure(dev=dev, other=other)
    assert given == 1
    assert both["dev"] == first["dev"]
    assert measure(other=other, renamed=dev) == ({"other": both["other"], "renamed": both["dev"]}, 0)
    words, given = measure(dev=dev, other=EvaluationSet(other.recordings, "zh", "whisper-english"))
    assert given == 0
    assert words["other"]["teacher"]["wer"] is not None
    assert words["other"]["teacher"]["mer"] == both["other"]["teacher"]["mer"]
    assert words["dev"]["teacher"]["wer"] is None
    english, given = measure(dev=EvaluationSet(dev.recordings, "en"))
    assert given == 1
    assert english["dev"]["teacher"]["language"] == "en"
    assert len(list((tmp_path / "resume").iterdir())) == 1
    assert measure(dev=dev)[1] == 1


def test_transcripts_name_their_set_and_figures_lie_below_it(measure, folder, tmp_path):
    measure(dev=EvaluationSet(recordings_of(folder, "dev"), "zh"), other=EvaluationSet(recordings_of(folder, "other")))
    assert list(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["sets"]) == ["dev", "other"]
    lines = (tmp_path / "figures_transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["set"] for line in lines] == ["dev", "other"]


def test_python_measures_several_sets_and_checks_all_of_them_first(workplace, folder):
    dev, bare = recordings_of(folder, "dev"), recordings_of(folder, "dev").map(lambda row: {"reference": ""})
    sets = {"dev": dev, "en": EvaluationSet(recordings_of(folder, "en"), "en", "whisper-english")}
    found = evaluate_sets(str(workplace / "teacher"), sets, language="zh", beam_size=1)
    assert [(name, one.language, one.normaliser) for name, one in found.items()] == [
        ("dev", "zh", "mixed"), ("en", "en", "whisper-english"),
    ]  # fmt: skip
    assert found["dev"].mer == 0.0
    assert found["dev"].rtfx == pytest.approx(1 / found["dev"].rtf)
    assert found["en"].word_errors["reference_length"] == 4  # it is machine learning
    with pytest.raises(K2DError, match=r"^bare: none of 1 recordings can be evaluated"):
        evaluate_sets("no/where", {"dev": dev, "bare": bare})
    with pytest.raises(K2DError, match=r"^normaliser 'x': there is none"):
        evaluate_model("no/where", dev, normaliser="x")


# The command


def evaluated(workplace, *words):
    return main(["evaluate", str(workplace / "teacher"), *map(str, words), "--beam-size", "1", "--language", "zh"])


def test_the_command_takes_sets_by_name(workplace, folder, tmp_path, capsys):
    english = f"en={{source: {folder / 'en.jsonl'}, language: en, normaliser: whisper-english}}"
    assert (
        evaluated(
            workplace, "--data", f"dev={folder / 'dev.jsonl'}", "--data", english, "--output", tmp_path / "f.json"
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "1 model, 2 sets, 2 recordings" in shown
    assert "dev: 1 recording, 0.1 min, language zh" in shown
    assert "WER %" in shown.partition("en: 1 recording")[2]
    figures = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["sets"]
    assert [one["language"] for models in figures.values() for one in models.values()] == ["zh", "en"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (["{f}/dev.jsonl", "{f}/en.jsonl"], "evaluate: --data {f}/en.jsonl: several sets need a name each: --data NAME=DATA"),
        (["a={f}/dev.jsonl", "{f}/en.jsonl"], "evaluate: --data {f}/en.jsonl: several sets need a name each"),
        (["a={f}/dev.jsonl", "a={f}/en.jsonl"], "evaluate: --data a={f}/en.jsonl: a is named twice"),
        (["a={f}/dev.jsonl", "A={f}/en.jsonl"], "evaluate: --data: a and A are one name to some file systems; rename one"),
        (["a={f}/dev.jsonl", "b={f}/bare.jsonl"], "b: none of 1 recordings in {f}/bare.jsonl has a reference; give a manifest"),
        (["a={f}/dev.jsonl", "b={f}/no.jsonl"], "b: recordings {f}/no.jsonl: no such file or folder"),
        (["a={{source: {f}/dev.jsonl, lang: en}}"], "evaluate: --data a.lang: no such setting"),
        (["a={{source"], "--data a={{source: the value is not YAML"),
        (["a={{source: {f}/dev.jsonl, normaliser: whisper-english}}"], "evaluate: --data a.normaliser: whisper-english is for English"),
        (["a b={f}/dev.jsonl"], "evaluate: --data: 'a b' cannot be the name of a set"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_a_command_line_is_one_line(workplace, folder, data, line, capsys):
    given = [word for one in data for word in ("--data", one.format(f=folder))]
    assert evaluated(workplace, *given) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"k2d: {line.format(f=folder)}"), error
    assert error.count("\n") == 1
