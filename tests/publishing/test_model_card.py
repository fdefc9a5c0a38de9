"""The card holds what was measured, and nothing of the user's data."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard, parse_eval_result_entries

from k2d_hf import create_student
from k2d_hf.evaluation.switching import switching_of
from k2d_hf.evaluation.ways import FASTER_WHISPER, way_figures
from k2d_hf.models import Checkpoint
from k2d_hf.pipeline.recipe import DataSettings, EvaluationDataSettings, HubSettings, Recipe
from k2d_hf.pipeline.stages.card import gather_facts, write_card
from k2d_hf.publishing.card_rendering import render_card
from k2d_hf.publishing.card_use import opened_with
from k2d_hf.publishing.eval_results import result_files, write_results
from k2d_hf.publishing.model_card_data import DataFacts, EvaluatedSet, K2DModelCardData
from publishing.card_parts import (
    FIGURES,
    LOG,
    TRAINED,
    body,
    code,
    evaluated,
    facts,
    headings,
    metadata,
    rows,
    table_heads,
    training,
)

CARDS = Path(__file__).parents[2] / "model_cards"


def card(**changes):
    return render_card(facts(**changes)).content


def test_metadata_is_what_the_hub_knows_and_no_more():
    assert metadata(card(license="mit", model_id="me/lectures", tags=["lectures", "k2d"], datasets=["me/talks"])) == {
        "language": ["zh"],
        "license": "mit",
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "base_model": "openai/whisper-base",
        "base_model_relation": "finetune",
        "datasets": ["me/talks"],
        "tags": ["k2d", "knowledge-distillation", "code-switching", "whisper", "lectures"],
    }


def test_what_is_not_known_is_not_there():
    text = render_card(K2DModelCardData()).content
    assert set(metadata(text)) == {"library_name", "pipeline_tag", "tags"}
    assert headings(text) == ["## Use", "## Limits", "## Citation"]
    for word in ("None", "MER", "nan", "assistant", "faster", "checked by", "trained on", "huggingface.co"):
        assert word not in text.partition("## Citation")[0].replace(opened_with(), "")


def test_every_evaluated_set_is_in_table_and_model_index():
    sets = [
        evaluated(),
        EvaluatedSet({"student": {**FIGURES, "en_wer": 0.3}}, dataset="me/dev", config="zh", split="dev"),
    ]
    text = card(evaluations=sets, training=training(evaluated={"own": {"loss": 1.0, "mer": 0.25}}))
    assert body(text).count("| student | 20.0 | 10.0 | - | 1/2/3 | 0 | 0.100 | 10.0 | 64.2 M |") == 1
    assert "The student is 3.0 times as fast as its teacher." in text
    assert "me/dev (zh, dev): 1 recording, 3.0 min, long-form by transformers, beam 5." in text
    assert "| own | 1.000 | 25.0% |" in text
    (index,) = metadata(str(ModelCard(text)))["model-index"]  # as whoever loads and saves it would leave it
    measured = {r["dataset"]["name"]: [(m["type"], m["value"]) for m in r["metrics"]] for r in index["results"]}
    assert index["name"] == "lectures"
    assert measured == {
        "evaluation recordings of the recipe": [("mer", 20.0), ("cer", 10.0)],
        "me/dev": [("mer", 20.0), ("cer", 10.0), ("wer", 30.0)],
        "own": [("mer", 25.0)],
    }
    assert index["results"][1]["dataset"] == {"name": "me/dev", "type": "me/dev", "config": "zh", "split": "dev"}


def test_each_named_set_has_its_heading_chart_and_results_and_alike_ones_an_average():
    english = {"wer": 0.125, "normaliser": "whisper-english", "language": "en"}
    sets = [
        EvaluatedSet(evaluated(language="zh").figures, name="ascend"),
        EvaluatedSet(evaluated(language="zh", mer=0.4).figures, name="ntuml"),
        EvaluatedSet({"student": {**FIGURES, **english}}, name="libri", dataset="org/libri", split="test"),
    ]
    for one in sets[:2]:
        one.figures["teacher"]["language"] = "zh"
    text = card(evaluations=sets)
    results = text.partition("## Results")[2].partition("\n## ")[0]
    average = "### Macro average of ascend and ntuml (language zh), each set counted once"
    assert headings(results) == ["### ascend", "### ntuml", "### libri", average]
    assert f"{average}\n\n| model | MER % |\n| --- | --- |\n| teacher | 20.0 |\n| student | 30.0 |" in results
    assert results.count("```\nMER %\nteacher  ████") == 2
    assert "```\nWER %\nstudent  ████" in results
    assert "org/libri (test): 1 recording, 3.0 min, long-form by transformers, beam 5, given language en." in results
    assert "| student | 12.5 | 20.0 |" in results
    assert "WER: word error rate after Whisper's English normaliser" in results
    (index,) = metadata(text)["model-index"]
    named = [(one["dataset"]["name"], one["dataset"]["type"]) for one in index["results"]]
    assert named == [("ascend", "evaluation"), ("ntuml", "evaluation-2"), ("org/libri", "org/libri")]
    assert [(m["type"], m["name"], m["value"]) for m in index["results"][2]["metrics"]][1] == (
        "wer", "WER (Whisper's English normaliser)", 12.5,
    )  # fmt: skip
    assert "normaliser" not in card(evaluations=sets[:2])


def test_a_result_on_a_benchmark_is_a_file_in_the_form_of_the_hub(tmp_path):
    """https://huggingface.co/docs/hub/eval-results; read back by huggingface_hub."""
    measurement = {"id": "one", "date": "2026-11-29 17:00:00"}
    figures = {**FIGURES, "wer": 0.1234, "measurement": measurement}
    benchmark = EvaluatedSet({"student": figures}, name="libri", dataset="org/libri", task="clean")
    others = [
        EvaluatedSet({"student": figures}, name="own", task="clean"),
        EvaluatedSet({"student": figures}, dataset="org/x"),
    ]
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "gpqa.yaml").write_text("[]", encoding="utf-8")  # somebody else's
    write_results([*others, benchmark], tmp_path)
    (path,) = result_files(tmp_path)
    assert path.name == "k2d-libri.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    (entry,) = parse_eval_result_entries(content)
    assert (entry.dataset_id, entry.task_id, entry.value, entry.date) == ("org/libri", "clean", 12.34, "2026-11-29")
    assert entry.notes.startswith(
        "WER in percent (Whisper's English normaliser), long-form by transformers, beam 5, k2d_hf "
    )
    assert content[0].keys() == {"dataset", "value", "date", "notes"}
    write_results(others, tmp_path)
    assert [one.name for one in (tmp_path / ".eval_results").iterdir()] == ["gpqa.yaml"]


def test_insertions_of_models_stand_below_their_table():
    inserted = {**FIGURES, "insertions_by_script": {"Han": 4, "marks": 223}}
    text = card(evaluations=[EvaluatedSet({"teacher": FIGURES, "student_before": inserted, "student": inserted})])
    assert text.count("Inserted, by script") == 1
    assert "(marks: those in a row): student, before: 4 Han, 223 marks; student: 4 Han, 223 marks." in text
    assert "Inserted" not in card(evaluations=[evaluated()])


def test_errors_where_the_language_changes_stand_below_their_table():
    switched = {**FIGURES, "switching": switching_of([("我開 meeting 談 budget", "我开会谈 budget")])}
    text = card(evaluations=[EvaluatedSet({"teacher": FIGURES, "student": switched})])
    title = "Errors in % where the language changes, at a switch (4 of 5 tokens) and away:"
    table = "| model | at | away | Han to Latin | Latin to Han | Latin as Han | Han as Latin |\n| --- |"
    assert f"\n\n{title}\n\n{table}" in text
    assert "| student | 25.0 | 0.0 | 25.0 | 50.0 | 50.0 | 0.0 |\n\nAt a switch: reference tokens" in text
    never = {**FIGURES, "switching": switching_of([("好", "坏")])}
    for figures in (FIGURES, never):
        assert "language changes" not in card(evaluations=[EvaluatedSet({"student": figures})])


def test_what_the_language_token_began_as_is_a_row():
    assert rows(card(language_mix={"zh": 0.75, "en": 0.25}))["language token begins as"] == "75% zh, 25% en"
    assert "language token begins as" not in rows(card())


def test_how_it_was_made():
    text = card(decoder_layers="2 of 6 (0, 5)", parameters=64_200_000, teacher_parameters=72_600_000, beam_size=5)
    assert rows(text) == {
        "---": "---",
        "teacher": "openai/whisper-base, beam 5",
        "auxiliary": "openai/whisper-tiny",
        "speech labelled": "15.0 min, 40 chunks",
        "validation": "composite, threshold 0.4",
        "speech kept": "10.0 min (67%), 32 chunks",
        "dropped": "8 distance > 0.40, 1 label too long for the decoder",
        "teacher and auxiliary apart, on what was kept": "mean MER 5.0%, distance 0.04",
        "decoder layers": "2 of 6 (0, 5)",
        "parameters": "64.2 M; teacher 72.6 M",
        "encoder": "the teacher's, frozen",
        "teacher's probabilities": "soft targets on disk",
        "loss": "ce_weight 0.8, kl_weight 1, auxiliary_weight 0, temperature 2",
        "training arguments": "learning_rate 0.0003, freeze_embeddings True",
        "chunks in a step": "8",
        "training": "112 steps, 14 epochs, 1.5 min on cpu, 2 processes",
        "versions": "torch 2.9",
    }


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100])
def test_the_log_is_a_few_rows_with_the_last_among_them(length):
    log = [{"step": i, "loss": 1.0} for i in range(length)] + [{"step": length, "train_runtime": 3.0}]
    table = body(card(training_log=log)).partition("| step | loss |\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert len(table) == len(set(table))
    assert min(length, 5) <= len(table) <= 8
    assert table[-1] == f"| {length - 1} | 1.000 |"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, True),
        ({"base_model": None}, False),
        ({"training": None}, False),
        ({"training": training(shares_encoder=False)}, False),
        ({"training": training(shares_encoder=None)}, False),
        ({"adapters_alone": True}, False),
    ],
)
def test_assisted_decoding_is_shown_where_encoder_and_teacher_are_known(changes, shown):
    assert ("## As its teacher's assistant" in card(**changes)) is shown


def test_adapters_alone_are_not_called_a_student():
    text = card(adapters_alone=True, model_id="me/adapters")
    assert metadata(text)["library_name"] == "peft"
    assert "base_model" not in metadata(text)
    assert code(text) == []
    assert 'PeftModel.from_pretrained(student, "me/adapters")' in text


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, None),
        ({"ctranslate2": True}, 'folder = "ctranslate2"'),
        ({"ctranslate2": True, "model_id": "me/x"}, 'snapshot_download("me/x", allow_patterns="ctranslate2/*")'),
    ],
)
def test_faster_whisper_is_shown_where_its_export_is(changes, source):
    text = card(**changes)
    assert ("faster_whisper" in text) is (source is not None)
    assert source is None or source in text


def test_code_in_a_card_is_python():
    for block in code(card(ctranslate2=True, model_id="me/x", evaluations=[evaluated()])):
        compile(block, "card", "exec")


def test_code_in_a_card_runs_and_the_assisted_text_is_the_teacher_s(
    tiny_whisper_dir, tmp_path, noise_file, monkeypatch
):
    """Teacher and student of this disk in place of those on the Hub."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

    warnings.simplefilter("ignore")
    teacher = WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir)
    teacher.generation_config.max_length = 24
    WhisperProcessor.from_pretrained(tiny_whisper_dir).save_pretrained(tmp_path / "teacher")
    teacher.save_pretrained(tmp_path / "teacher")
    WhisperProcessor.from_pretrained(tiny_whisper_dir).save_pretrained(tmp_path / "student")
    create_student(teacher, language="zh").save_pretrained(tmp_path / "student")
    sound, rate = soundfile.read(noise_file, frames=5 * 16000)
    monkeypatch.chdir(tmp_path)
    use, assisted = code(card(model_id="me/student"))
    places = {'"me/student"': '"student"', '"openai/whisper-base"': '"teacher"', '"lecture.flac"': "{**lecture}"}
    for name, place in places.items():
        use, assisted = use.replace(name, place), assisted.replace(name, place)
    lecture = {"raw": sound, "sampling_rate": rate}  # a file would be read by ffmpeg
    names = {"lecture": lecture}
    exec(use, names)
    assert assisted.rstrip().splitlines()[-1].startswith("asr(")
    exec(assisted.replace("\nasr(", "\nresult = asr("), names)
    plain = pipeline("automatic-speech-recognition", model="teacher")
    alone = plain({**lecture}, return_timestamps=True, generate_kwargs={"num_beams": 1, "language": "zh"})
    assert names["result"] == alone
    assert alone["text"]


SECRET = "the patient's name"
EVIL = [
    "a|b\n| forged | row |",
    "x\n---\nlicense: mit\n---\n# Forged",
    "[click](http://evil.example) <script>alert(1)</script>",
    "{{ 7 * 7 }} {% raw %} `code` **bold**",
    '"; import os; os.system("x") #',
    "\u202egnp.exe \x00 http://evil.example www.evil.example",
]


@pytest.mark.parametrize("evil", EVIL)
def test_names_stay_names(evil):
    """Whatever a name holds, the card has no other metadata, headings, tables, links or code than without it."""
    named = EvaluatedSet(evaluated().figures, name="dev")
    everything = {"evaluations": [named], "training": training(evaluated={"dev": {"loss": 1.0, "mer": 0.5}})}
    known = {"model_name": "m", "teacher": "t", "auxiliary": "a", "metric": "composite", "base_model": None}
    good = card(**{**everything, **known})
    hostile = card(
        **dict.fromkeys(("model_name", "teacher", "auxiliary", "metric", "base_model", "model_id", "license"), evil),
        language=[evil],
        tags=[evil],
        datasets=[evil],
        evaluations=[EvaluatedSet({**evaluated().figures}, name=evil, dataset=evil, config=evil, split=evil)],
        training=training(evaluated={evil: {"loss": 1.0, "mer": 0.5}}),
    )
    assert metadata(hostile).keys() == metadata(good).keys()
    levels = [[line.partition(" ")[0] for line in headings(text)] for text in (hostile, good)]
    assert levels[0] == levels[1]
    assert [line for line in headings(hostile) if line[:3] == "## "] == [
        line for line in headings(good) if line[:3] == "## "
    ]
    assert table_heads(hostile) == table_heads(good)
    assert rows(hostile).keys() == rows(good).keys()
    assert code(hostile) == code(good)
    assert body(hostile).count("\n") == body(good).count("\n")
    assert not set("\u202e\x00") & set(hostile)
    for live in ("](http://evil", "<script", " http://evil", " www.evil", "\n# Forged"):
        assert live not in body(hostile)
    assert "49" not in body(hostile).replace(opened_with(), "")


@pytest.fixture(scope="module")
def run(tiny_whisper_dir, processor, tmp_path_factory):
    """The folder of a run with everything in it that a card must not show."""
    from transformers import WhisperForConditionalGeneration

    home = tmp_path_factory.mktemp("home-of-the-user")
    directory = home / "run"
    teacher = home / "models" / "big"
    shutil.copytree(tiny_whisper_dir, teacher)
    (teacher / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Big\n", encoding="utf-8")
    model = WhisperForConditionalGeneration.from_pretrained(teacher)
    create_student(model, [0, 3], language="zh").save_pretrained(directory / "student")
    processor.save_pretrained(directory / "student")
    path = str(home / "secret.wav")
    row = {"recording": path, "duration": 90.0, "text": SECRET, "auxiliary_text": SECRET, "language": "zh"}
    kept = {**row, "keep": True, "drop_reason": None, "mer": 0.1, "distance": 0.0}
    dropped = {**row, "keep": False, "drop_reason": f"{path}: {SECRET}", "mer": 1.0, "distance": 1.0, "language": path}
    Dataset.from_list([kept, kept, dropped]).save_to_disk(str(directory / "validated"))
    figures = {**FIGURES, "model": path, "skipped": [{"recording": path, "reason": "no reference"}]}
    (directory / "evaluation.json").write_text(json.dumps({"teacher": figures, "student": figures}), encoding="utf-8")
    (directory / "student" / "training_log.json").write_text(json.dumps(LOG), encoding="utf-8")
    stored = {**TRAINED, "shares_encoder": None, "chunks": 2}
    (directory / "student" / "training_facts.json").write_text(json.dumps(stored), encoding="utf-8")
    recipe = Recipe(
        name="tiny",
        recordings=DataSettings(source=str(home / "recordings")),
        evaluation=EvaluationDataSettings(source=str(home / "dev.jsonl")),
        teacher=str(teacher),
        auxiliary="teacher",
    )
    return home, directory, recipe, Checkpoint(teacher, str(teacher), "local")


def test_a_run_s_card_has_its_facts_and_nothing_of_its_data(run):
    home, directory, recipe, teacher = run
    before = {path: path.stat().st_mtime_ns for path in (directory / "validated").rglob("*")}
    text = write_card(directory, recipe, teacher=teacher, auxiliary=teacher).read_text(encoding="utf-8")
    assert home.name not in text
    assert SECRET not in text
    assert metadata(text)["license"] == "mit"
    assert metadata(text)["language"] == ["en", "zh"]  # of labels in Latin script
    table = rows(text)
    assert table["teacher"] == "big, beam 5"
    assert table["auxiliary"] == "the teacher's checkpoint, decoding each chunk from scratch"
    assert table["speech kept"] == "3.0 min (67%), 2 chunks"
    assert table["dropped"] == "1 other reasons"
    assert table["encoder layers"] == "2"
    assert table["decoder layers"] == "2 of 4 (0, 3)"
    assert table["encoder"] == "the teacher's, frozen"
    assert "| student | 20.0 |" in text
    assert {path: path.stat().st_mtime_ns for path in (directory / "validated").rglob("*")} == before


def test_an_encoder_that_nobody_compared_with_the_teachers_is_not_called_the_teachers(run):
    _, directory, recipe, teacher = run
    for student, distil in (({"init": str(teacher.path)}, {}), ({}, {"freeze_encoder": False})):
        other = replace(recipe, student=replace(recipe.student, **student), distil=distil)
        text = write_card(directory, other, teacher=teacher, auxiliary=teacher).read_text(encoding="utf-8")
        assert "encoder" not in rows(text)


def test_a_code_switched_student_has_both_languages_and_decodes_in_the_one_of_its_labels():
    mixed = replace(facts().data, mixed_in=["en"])
    text = card(data=mixed, ctranslate2=True)
    assert metadata(text)["language"] == ["en", "zh"]
    assert "A speech recogniser for code-switched speech (languages en, zh), distilled" in text
    assert 'model.transcribe("lecture.flac", language="zh"' in text
    assert metadata(card(data=mixed, language=["zh"]))["language"] == ["zh"]
    assert "(language zh)" in card()


def test_a_card_names_the_data_set_and_shows_what_was_written_only_where_the_user_allows(run):
    _, directory, recipe, teacher = run
    lines = [
        {"model": model, "set": name, "recording": "/x", "reference": f"{name} reference", "hypothesis": SECRET * 40}
        for model in ("teacher", "student")
        for name in ("a", "b|c")
    ]
    transcripts = directory / "evaluation_transcripts.jsonl"
    transcripts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recordings = DataSettings(source="org/talks", config="zh", split="train")
    hub = HubSettings(repo_id="me/x", data_repo_id="me/x-chunks")
    named = replace(recipe, recordings=recordings, hub=hub)
    text = write_card(directory, named, teacher=teacher, auxiliary=teacher).read_text(encoding="utf-8")
    assert metadata(text)["datasets"] == ["me/x-chunks", "org/talks"]
    assert rows(text)["recordings"] == "org/talks, zh, train"
    assert "Sample output" not in text
    assert SECRET not in text
    shown = replace(named, hub=replace(hub, sample_output=True))
    text = write_card(directory, shown, teacher=teacher, auxiliary=teacher).read_text(encoding="utf-8")
    transcripts.unlink()
    sample = text.partition("## Sample output\n")[2].partition("\n## ")[0]
    assert "| a, reference | a reference |\n| a, student | the patient's name" in sample
    assert "| b\\|c, student |" in sample
    assert sample.count(SECRET) == 2 * (300 // len(SECRET))
    assert sample.count(" … |") == 2


@pytest.mark.parametrize(
    ("name", "origin", "readme", "licence"),
    [
        ("openai/whisper-large-v2", "hub", None, "apache-2.0"),
        ("openai/whisper-large-v3-turbo", "hub cache", None, "mit"),
        ("openai/whisper-base", "wheels", None, "apache-2.0"),
        ("openai/whisper-base", "hub", "---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"),
        ("openai/whisper-large-v2@main", "hub", None, "apache-2.0"),
        ("somebody/whisper-large-v2", "hub", None, None),
        ("openai/whisper-base", "local", None, None),  # a folder of that name
    ],
)
def test_the_licence_is_that_of_the_teacher_s_card_or_of_openai_s_checkpoints(
    run, tmp_path, name, origin, readme, licence
):
    _, directory, recipe, teacher = run
    shutil.copytree(teacher.path, tmp_path / "teacher", ignore=shutil.ignore_patterns("README.md"))
    if readme:
        (tmp_path / "teacher" / "README.md").write_text(readme, encoding="utf-8")
    given = Checkpoint(tmp_path / "teacher", name, origin)
    assert gather_facts(directory, recipe, teacher=given, auxiliary=teacher).license == licence


def test_what_the_user_says_goes_before_what_was_found(run):
    _, directory, recipe, teacher = run
    path = write_card(directory, recipe, teacher=teacher, auxiliary=teacher, license="cc-by-4.0", language=["zh", "en"])
    found = metadata(path.read_text(encoding="utf-8"))
    assert (found["license"], found["language"]) == ("cc-by-4.0", ["en", "zh"])


def test_an_evaluation_set_of_the_hub_is_named():
    text = card(evaluations=[EvaluatedSet({"student": FIGURES}, dataset="me/dev")])
    assert metadata(text)["model-index"][0]["results"][0]["dataset"] == {"name": "me/dev", "type": "me/dev"}


def test_without_validation_nothing_is_called_kept():
    text = card(data=DataFacts(4, 60.0), metric=None)
    assert "kept" not in body(text)
    assert "checked by" not in text
    assert "It was trained on 1.0 min of speech" in text


def test_speeds_of_two_measurements_are_not_divided():
    apart = evaluated(measurement={"id": "of another day"})
    assert "times as fast" in card(evaluations=[evaluated()])
    assert "times as fast" not in card(evaluations=[apart])


def test_the_quickstart_s_card_is_built_as_the_renderer_builds_it():
    """Rendered from facts such as the quickstart leaves; when the template changes, make the quickstart's card anew."""
    committed = (CARDS / "quickstart.md").read_text(encoding="utf-8")
    switching = switching_of([("我開 meeting 談 budget", "我开会谈 budget")])
    measured = [evaluated(en_wer=0.3, switching=switching, ways={FASTER_WHISPER: way_figures(FIGURES)})]
    begun = training(shares_encoder=None)  # with a start, whose encoder nobody compared with the teacher's
    rendered = render_card(
        facts(
            model_name="quickstart",
            evaluations=measured,
            machine="x86_64, Linux",
            license="apache-2.0",
            training=begun,
        )
    ).content
    assert headings(committed) == headings(rendered)
    assert list(metadata(committed)) == list(metadata(rendered))
    assert table_heads(committed) == table_heads(rendered)
    for measured in (rendered, committed):
        (result,) = metadata(measured)["model-index"][0]["results"]
        assert [metric["type"] for metric in result["metrics"]] == ["mer", "cer", "wer"]
