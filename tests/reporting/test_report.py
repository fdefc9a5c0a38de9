"""The report of a run, as a browser shows it: complete, self-contained, and whatever is in the data stays text."""

import io
import json
import re
import shutil
import sys
from itertools import count

import pytest
import yaml
from chromium import Chromium
from datasets import load_from_disk

from k2d_hf import load_recipe, run_recipe
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.pipeline.recipe import ReportSettings
from k2d_hf.pipeline.report import report_or_warn
from k2d_hf.pipeline.stages import stages
from k2d_hf.reporting.gathering import gather
from k2d_hf.reporting.report import write_report
from k2d_hf.terminal.console import Console

SCRIPT = "<script>document.title = 'taken'</script> 今天 </textarea>"
NAME = """quick "start" & <b>'more'</b>"""
IMAGE = "<img src=http://127.0.0.1:9/x onerror=\"document.title = 'taken'\">"
LESS = "targets.enabled=false", "evaluate.before=false"  # work
WRITTEN_BY_MODELS = """[...document.querySelectorAll("dd")].map(one => {
    const text = one.cloneNode(true); text.querySelectorAll("del").forEach(part => part.remove());
    return text.textContent; }).join("\\n")"""
DURATIONS = """Promise.all([...document.querySelectorAll("audio")].map(audio => audio.readyState ? audio.duration :
    new Promise(done => { audio.onloadedmetadata = () => done(audio.duration); audio.onerror = () => done(-1); })))"""


def run(workplace, output, *sets):
    """Run the recipe with a report into `output`; returns what was printed."""
    stream = io.StringIO()
    recipe = load_recipe(workplace / "recipe.yaml", [f"output={output}", "report.enabled=true", *LESS, *sets])
    run_recipe(recipe, console=Console(stream=stream, clock=count(0.0, 30.0).__next__))
    return stream.getvalue()


def write_references(workplace, folder, *names):
    """A manifest with references of recordings of the workplace."""
    segments = [{"start": 0, "end": 25, "text": "今天講課"}]
    rows = [{"audio": str(workplace / "recordings" / f"{name}.flac"), "segments": segments} for name in names]
    (folder / "references.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "references.jsonl"


@pytest.fixture(scope="module")
def finished(workplace, tmp_path_factory):
    """The folder of a run with a path that needs escaping, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "a & b's run"
    return output, run(workplace, output)


@pytest.fixture(scope="module")
def hostile(finished, tmp_path_factory):
    """The report of that run after somebody has written HTML wherever there is text, with two recordings to compare."""
    run = shutil.copytree(finished[0], tmp_path_factory.mktemp("hostile") / "r&d <i>")
    rows = load_from_disk(str(run / "validated")).to_list()
    rows[0] |= {
        "auxiliary_text": SCRIPT,
        "distance": 0.9,
        "keep": False,
        "drop_reason": IMAGE,
        "recording": rows[0]["recording"],
    }
    rows[1] |= {"text": IMAGE, "distance": 0.8, "recording": rows[1]["recording"].replace("one", "<u>no</u>")}
    rows[2] |= {"distance": 0.0}
    chunks = load_from_disk(str(run / "validated"))
    shutil.rmtree(run / "validated")
    type(chunks).from_list(rows, features=chunks.features).save_to_disk(str(run / "validated"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")) | {"name": NAME}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    lines = [
        json.loads(line) for line in (run / "evaluation_transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines += [{**line, "recording": IMAGE, "hypothesis": SCRIPT} for line in lines]
    (run / "evaluation_transcripts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    figures = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    figures["teacher"]["model"] = IMAGE
    figures["student"]["insertions_by_script"] = {"Han": 4, "marks": 223}
    (run / "evaluation.json").write_text(json.dumps(figures), encoding="utf-8")
    record = json.loads((run / "stages.json").read_text(encoding="utf-8"))
    record["label"]["line"] = SCRIPT
    (run / "stages.json").write_text(json.dumps(record), encoding="utf-8")
    return write_report(run, stages=stages())


@pytest.fixture(scope="module")
def browser(hostile):
    """A browser that has opened it."""
    with Chromium() as browser:
        browser.open(hostile.path)
        yield browser


def test_a_run_ends_with_its_report(finished):
    output, shown = finished
    assert f"Look:      {output / 'report.html'}\n" in shown
    stages = json.loads((output / "stages.json").read_text(encoding="utf-8"))
    assert all(entry["seconds"] >= 0 for entry in stages.values())
    # by a clock of which every look takes half a minute, the report too writes its progress to the log
    assert re.search(r" report: \d+/\d+ texts and clips, ", (output / "log.txt").read_text(encoding="utf-8"))


def test_references_renew_the_report_and_nothing_else(finished, workplace, tmp_path, capsys):
    output = shutil.copytree(finished[0], tmp_path / "run")
    assert json.loads((output / "calibration.json").read_text(encoding="utf-8"))["references"] is None
    written = []
    for names in (["one"], ["one", "two"]):
        references = write_references(workplace, tmp_path, *names)
        for _ in range(2):  # the second does nothing
            shown = run(workplace, output, f"references={references}")
            assert shown.count("up to date: ") == 7
            assert f"Look:      {output / 'report.html'}\n" in shown
            written.append((output / "report.html").stat().st_mtime_ns)
    assert written[0] == written[1] < written[2] == written[3]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Recall of bad labels" in page
    assert "teacher, against the reference" in page
    assert re.search(r"3 labels have a mean true MER .*, those that the run kept of \d+\.\d%; 3 are bad", page)
    calibration = json.loads((output / "calibration.json").read_text(encoding="utf-8"))
    assert calibration["references"]["chunks"] == 3
    assert {"calibration.png", "calibration.svg"} <= {path.name for path in output.iterdir()}
    capsys.readouterr()
    references.unlink()
    assert main(["report", str(output)]) == 0
    assert "without the references of the recipe: manifest " in capsys.readouterr().err
    assert "Recall of bad labels" not in (output / "report.html").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_nothing_goes_wrong(browser, hostile):
    durations = browser.evaluate(DURATIONS)
    assert browser.complaints() == []
    assert browser.requested() == [hostile.path.resolve().as_uri()]
    assert durations == pytest.approx([20, 20, 25], abs=0.2)  # two chunks and a recording that are there


def test_what_is_text_in_the_data_is_text_on_the_page(browser):
    assert browser.evaluate("document.title") == f"K2D: {NAME}"
    assert browser.evaluate("document.querySelectorAll('script, img, textarea, u, i').length") == 0
    shown = browser.evaluate("document.body.textContent")
    assert SCRIPT in shown  # the result of a stage
    assert browser.evaluate(WRITTEN_BY_MODELS).count(SCRIPT) == 3  # the auxiliary, and two models of the evaluation
    assert shown.count(IMAGE) >= 3  # a reason in two places, a label, the name of a model
    assert browser.evaluate("document.querySelector('h1').textContent") == NAME
    assert "<u>no</u>.flac" in shown


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_is_as_wide_as_its_window(browser, width):
    browser.resize(width, 900)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    tables = "[...document.querySelectorAll('table')].every(table => table.closest('.scroll') !== null)"
    assert browser.evaluate(tables)


def test_the_page_can_be_read_by_its_structure(browser):
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelectorAll('.han[lang=zh]').length") > 0
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(one => one.getAttribute('aria-label'))")
    targets = browser.evaluate("[...document.querySelectorAll('nav a')].map(one => one.getAttribute('href').slice(1))")
    assert set(targets) <= set(ids)


def test_the_page_shows_what_the_run_did(browser):
    shown = browser.evaluate("document.body.innerText")
    assert (
        browser.evaluate("document.querySelectorAll('figure svg').length") == 6
    )  # rates, distances, kept, loss, agreement, rate
    assert "95% interval" in shown  # of two recordings
    assert "4 recordings, skipped 1 not audio; 80 s read" in shown
    assert "; 20 s passed over" in shown
    assert "3 chunks" in shown
    assert "student: 4 Han, 223 marks" in shown
    assert re.search(r"\d of the kept chunks, drawn at random", shown)
    assert "the audio is not available: no such file" in shown


def test_the_student_is_asked_once_for_the_chunks_that_are_shown(finished, tmp_path, monkeypatch):
    run = shutil.copytree(finished[0], tmp_path / "run")
    monkeypatch.setattr("k2d_hf.transcription.engines.OnDemand.load", lambda *a, **k: pytest.fail("asked again"))
    page = write_report(run, stages=stages(), megabytes=0).path.read_text(encoding="utf-8")
    assert "student, against the teacher" in page
    assert "student, against the teacher" not in write_report(
        run, stages=stages(), megabytes=0, student=False
    ).path.read_text("utf-8")
    monkeypatch.undo()
    (run / "student" / "config.json").write_text("{}", encoding="utf-8")
    written = write_report(run, stages=stages(), megabytes=0)
    assert any(note.startswith("no transcripts of the student: ") for note in written.notes)


def test_a_page_grows_no_larger_than_it_may(finished, tmp_path):
    written = write_report(finished[0], stages=stages(), output=tmp_path / "small.html", megabytes=0.15)
    assert written.bytes == (tmp_path / "small.html").stat().st_size <= 150_000
    assert written.clips == 0
    assert "3 players left out" in written.notes[0] or "4 players left out" in written.notes[0]
    assert "the audio is left out" in (tmp_path / "small.html").read_text(encoding="utf-8")


def test_without_matplotlib_there_is_a_page_without_plots(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_report(finished[0], stages=stages(), output=tmp_path / "plain.html", megabytes=0)
    assert "no plots: they take matplotlib; pip install 'matplotlib>=3.9'" in written.notes
    assert "<svg" not in (tmp_path / "plain.html").read_text(encoding="utf-8")


def test_a_report_that_fails_is_one_line_and_the_run_continues(finished, tmp_path, capsys):
    run = shutil.copytree(finished[0], tmp_path / "run")
    (run / "recipe.yaml").write_bytes(b"\xff")
    assert report_or_warn(run, ReportSettings(), Console(stream=io.StringIO())) is None
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("k2d: no report: ")


def test_of_a_record_without_times_training_has_the_trainers_own(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    record = json.loads((run / "stages.json").read_text(encoding="utf-8"))
    without = {name: {key: value for key, value in entry.items() if key != "seconds"} for name, entry in record.items()}
    (run / "stages.json").write_text(json.dumps(without), encoding="utf-8")
    noted = json.loads((run / "student" / "training_facts.json").read_text(encoding="utf-8"))["seconds"]
    facts = gather(run, stages=stages()).stages
    assert {fact.name: fact.seconds for fact in facts if fact.seconds is not None} == {"distil": noted}


def test_a_run_that_has_hardly_begun_has_a_report_too(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: early\n", encoding="utf-8")
    page = write_report(tmp_path, stages=stages()).path.read_text(encoding="utf-8")
    for sentence in ("This run has measured nothing", "No stage of this run is done", "No training has been logged"):
        assert sentence in page


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, "no recipe.yaml in it; give the folder of a run"),
        ({"recipe.yaml": "a: [\n"}, "recipe.yaml: cannot be read"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, files, error):
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(K2DError, match=error):
        write_report(tmp_path, stages=stages())


def test_the_command_takes_references_and_can_be_quiet(finished, workplace, tmp_path, capsys):
    references = write_references(workplace, tmp_path, "one", "two")
    command = [
        "report",
        str(finished[0]),
        "--references",
        str(references),
        "--output",
        str(tmp_path / "a.html"),
    ]
    assert main([*command, "--megabytes", "1", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Recall of bad labels" in page
    assert "teacher, against the reference" in page
    assert main(["report", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"k2d: {tmp_path}: no recipe.yaml in it")
