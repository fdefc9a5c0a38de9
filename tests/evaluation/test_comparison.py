"""Runs side by side: the bootstrap, grouping by recipe, what must be alike, and the command on folders of runs."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import yaml
from datasets import Dataset

from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.compared_sets import compare_sets, compared_averages
from k2d_hf.evaluation.comparison import compare_runs, interval, resampled_rates
from k2d_hf.evaluation.comparison_table import (
    AFTER_PARTS,
    BEFORE_PARTS,
    comparison_cells,
    comparison_markdown,
    render_comparison,
    render_comparisons,
)
from k2d_hf.evaluation.measured_run import MeasuredRun
from k2d_hf.evaluation.table import PAPER_PARTS
from k2d_hf.evaluation.ways import error_figures
from k2d_hf.terminal.screen import Screen, columns_of

TEXT = "一二三四五六七八九十"
HEAD = (*BEFORE_PARTS, *PAPER_PARTS, *AFTER_PARTS)


def measured(
    name, wrong, *, recordings=4, folder=None, seed=0, teacher_wrong=4, metric="composite", beam=5, places="/a"
):
    """A run whose student has `wrong` of ten characters wrong in every recording."""
    noise = 1e-12 * sum(name.encode())  # no two measurements are alike

    def figures(model, count):
        factor = (0.1 if model == "org/teacher" else 0.05) + noise
        return {
            "model": model, "mer": count / 10, "zh_cer": count / 10, "en_wer": None,
            "substitutions": count * recordings, "deletions": 0, "insertions": 0, "looping_outputs": 1,
            "rtf": factor, "rtf_runs": [factor], "engine": "transformers",
            "language": "zh", "beam_size": beam, "measurement": {"id": f"{folder or name} {seed}"},
        }  # fmt: skip

    def transcripts(count):
        hypothesis = "錯" * count + TEXT[count:]
        return [
            {"recording": f"{places}/{n}.flac", "reference": TEXT, "hypothesis": hypothesis} for n in range(recordings)
        ]

    recipe = {"name": name, "validate": {"metric": metric}, "distil": {"seed": seed}}
    models = {"teacher": ("org/teacher", teacher_wrong), "student": (f"runs/{name}/student", wrong)}
    return MeasuredRun(
        folder=folder or f"runs/{name}",
        recipe=recipe,
        kept=0.75,
        figures={key: figures(model, count) for key, (model, count) in models.items()},
        transcripts={key: transcripts(count) for key, (_, count) in models.items()},
    )


# The bootstrap


def test_rates_are_weighted_by_tokens():
    rates = resampled_rates(np.array([[1.0, 9.0]]), [10, 10], samples=2000)
    assert set(np.unique(rates)) == {0.1, 0.5, 0.9}
    long = resampled_rates(np.array([[1.0, 90.0]]), [10, 100], samples=50)
    assert set(np.unique(long.round(4))) == {0.1, round(91 / 110, 4), 0.9}


def test_the_same_seed_gives_the_same_draws_for_all_systems():
    errors = np.array([[3.0, 1.0, 4.0, 1.0, 5.0], [6.0, 2.0, 8.0, 2.0, 10.0]])
    one, other = (resampled_rates(errors, [10] * 5, samples=100, seed=seed) for seed in (1, 1))
    assert (one == other).all()
    assert one[:, 1] == pytest.approx(2 * one[:, 0])
    assert not (one == resampled_rates(errors, [10] * 5, samples=100, seed=2)).all()


def test_intervals_cover_the_rate_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        errors = generator.binomial(50, 0.2, size=(1, 40))
        low, high = interval(resampled_rates(errors, [50] * 40, samples=400, seed=seed))
        covered += low <= 0.2 <= high
    assert 0.88 <= covered / 200 <= 0.99


# Grouping and the table


def test_teachers_come_first_and_seeds_share_a_row():
    runs = [measured(f"lab-per-s{seed}", 2 + seed, seed=seed, metric="per") for seed in (0, 1, 2)]
    comparison = compare_runs([*runs, measured("lab-full", 5, metric="full")])
    assert [row.name for row in comparison.rows] == ["teacher", "lab-per", "lab-full"]
    teacher, per, full = comparison.rows
    assert (teacher.kept, teacher.reduction, teacher.speed_up, teacher.speed_runs) == (None, None, None, 4)
    assert (per.mer, per.mer_spread) == pytest.approx((0.3, 0.1))
    assert (per.reduction, per.speed_up, per.kept) == pytest.approx((0.25, 2.0, 0.75))
    assert (full.mer, full.mer_spread, full.reduction) == (0.5, None, -0.25)
    assert per.mer_interval == pytest.approx((0.3, 0.3))  # recordings that are alike


def test_a_measurement_that_a_run_began_with_as_a_copy_counts_once():
    first, second = measured("lab-s1", 2, seed=1), measured("lab-s2", 3, seed=2)
    second.figures["teacher"]["rtf_runs"][:] = first.figures["teacher"]["rtf_runs"]
    teacher, student = compare_runs([first, second]).rows
    assert (teacher.speed_runs, student.speed_runs) == (1, 2)


def test_speed_up_is_that_of_runs_that_timed_teacher_and_student_together():
    """The factor of another run's teacher, or of another day's, does not apply to a student."""
    together, apart = measured("lab-s1", 2, seed=1), measured("lab-s2", 3, seed=2)
    apart.figures["teacher"].update(rtf=10.0, rtf_runs=[10.0], measurement={"id": "of another day"})
    teacher, student = compare_runs([together, apart]).rows
    assert (teacher.speed_up, student.speed_up) == (None, pytest.approx(2.0))
    comparison = compare_runs([apart])
    assert comparison.rows[1].speed_up is None
    cells = [
        dict(zip(HEAD, comparison_cells(row, list(PAPER_PARTS)), strict=True))["speed-up"] for row in comparison.rows
    ]
    assert cells == ["1.0x", "-"]
    assert "speed-up is unknown (-) where teacher and student were not timed together" in comparison.notes
    assert any("of other days or machines" in note for note in comparison.notes)
    assert not any("speed-up" in note for note in compare_runs([together]).notes)


def test_a_second_teacher_is_a_row_of_its_own():
    second = measured("second", 1)
    figures = {**second.figures, "teacher": {**second.figures["teacher"], "model": "runs/first/student", "mer": 0.2}}
    later = MeasuredRun(second.folder, second.recipe, second.kept, figures, second.transcripts)
    rows = compare_runs([measured("first", 2, metric="per"), later]).rows
    assert [row.name for row in rows] == ["teacher (org/teacher)", "teacher (runs/first/student)", "first", "second"]
    assert [row.reduction for row in rows[2:]] == pytest.approx([0.5, 0.5])


def test_other_recipes_of_the_same_name_are_told_apart_by_their_folders():
    runs = [measured("mine", 2, folder=f"runs/{m}", metric=m) for m in ("per", "mer")]
    assert [row.name for row in compare_runs(runs).rows[1:]] == ["mine (runs/per)", "mine (runs/mer)"]


def test_what_only_looks_at_a_run_makes_no_row():
    runs = [measured("a", 2), measured("a", 2, folder="runs/other")]
    runs[1].recipe.update(references="/said.jsonl", report={"megabytes": 1.0})
    assert [row.name for row in compare_runs(runs).rows] == ["teacher", "a"]


def test_data_that_moved_is_the_same_data():
    assert len(compare_runs([measured("a", 2), measured("b", 2, metric="per", places="/elsewhere")]).rows) == 3


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (measured("b", 2, recordings=6), "different data: only runs/b has 4.flac and 1 more"),
        (measured("b", 2, recordings=3), "different data: only runs/a has 3.flac"),
        (measured("b", 2, beam=1), "decoded differently: beam_size 5 and 1"),
    ],
)
def test_what_was_measured_otherwise_is_refused(other, words):
    with pytest.raises(K2DError, match=words):
        compare_runs([measured("a", 2), other])


def test_another_reference_is_named():
    one, other = measured("a", 2), measured("b", 2)
    for run, ending in ((one, "."), (other, "x")):
        run.transcripts["teacher"][1]["reference"] = TEXT * 2 + ending
    with pytest.raises(K2DError, match=r"the reference of 1\.flac is another"):
        compare_runs([one, other])


@pytest.mark.parametrize(
    ("recordings", "words"), [(1, "no intervals"), (4, "only 4 recordings"), (30, "bootstrap over 30")]
)
def test_the_notes_say_what_intervals_are_worth(recordings, words):
    comparison = compare_runs([measured("a", 2, recordings=recordings)])
    assert any(words in note for note in comparison.notes)
    assert (comparison.rows[0].mer_interval is None) is (recordings == 1)
    assert any("wide" in note for note in comparison.notes) is (recordings == 4)


def test_cells_follow_the_head():
    row = compare_runs([measured("a", 3)]).rows[1]
    assert dict(zip(HEAD, comparison_cells(row, list(PAPER_PARTS)), strict=True)) == {
        "": "a", "runs": "1", "data": "75%", "MER %": "30.0 [30.0, 30.0]", "zh CER": "30.0", "en WER": "-",
        "S/D/I": "12/0/0", "loops": "1", "RTF": "0.050", "RTFx": "20.0", "speed-up": "2.0x", "MER, relative": "-25% [-25, -25]",
    }  # fmt: skip


def test_another_pair_has_parts_of_its_own_in_all_and_in_some_recordings():
    """Hindi with English words: by script, and neither of them is Mandarin."""
    run = measured("a", 3)
    rows = [
        {"recording": "/a/0.flac", "reference": "नमस्ते दोस्त machine", "hypothesis": "नमस्ते machines"},
        {"recording": "/a/1.flac", "reference": "नमस्ते दोस्त machine", "hypothesis": "नमस्ते दोस्त machine"},
    ]
    run = replace(run, transcripts=dict.fromkeys(("teacher", "student"), rows))
    for model, figures in run.figures.items():
        pairs = ((row["reference"], row["hypothesis"]) for row in rows)
        run.figures[model] = {**figures, **error_figures(pairs, "hi"), "language": "hi"}
    row = compare_runs([run]).rows[1]
    assert (row.parts, row.zh_cer, row.en_wer) == ({"hi WER": 0.25, "Latin WER": 0.5}, None, None)
    assert "| MER % | hi WER | Latin WER | S/D/I |" in comparison_markdown(compare_runs([run]))
    assert compare_runs([run], patterns=["0.flac"]).rows[1].parts == {"hi WER": 0.5, "Latin WER": 1.0}


def test_markdown_and_text_hold_the_same_rows():
    comparison = compare_runs([measured("a|b", 3)])
    assert "| a\\|b | 1 | 75% |" in comparison_markdown(comparison)
    assert "a|b      1" in render_comparison(comparison)


# Some of the recordings


def in_two_domains(name, wrong, broad_wrong, *, loops=(1, 0), **options):
    """A run on two lectures, two recordings of broad sentences and an English one, with a loop in each lecture."""
    run = measured(name, wrong, recordings=2, **options)
    transcripts = {}
    for model, rows in run.transcripts.items():
        count = 5 if model == "teacher" else broad_wrong
        broad = {"reference": TEXT * 2, "hypothesis": TEXT[count:] + TEXT}
        rows = [
            *({**row, "recording": f"/a/dev_{n}.flac", "looping_windows": loops[0]} for n, row in enumerate(rows)),
            *({**broad, "recording": f"/a/dev-broad_{n}.flac", "looping_windows": loops[1]} for n in range(2)),
            {"recording": "/a/said.flac", "reference": "so to say", "hypothesis": "so they say", "looping_windows": 0},
        ]
        if None in loops:
            rows = [{key: value for key, value in row.items() if key != "looping_windows"} for row in rows]
        transcripts[model] = rows
    return replace(run, transcripts=transcripts)


@pytest.mark.parametrize(
    ("patterns", "recordings", "tokens", "mer", "cells"),
    [
        (["dev_*"], 2, 20, 0.3, ("30.0", "-", "6/0/0", "2")),
        (["dev-broad*"], 2, 40, 0.05, ("5.0", "-", "0/2/0", "0")),
        (["said.flac"], 1, 3, 1 / 3, ("-", "33.3", "1/0/0", "0")),
        (["dev-broad*", "dev_[0-9].flac"], 4, 60, 8 / 60, ("13.3", "-", "6/2/0", "2")),
        (["*"], 5, 63, 9 / 63, ("13.3", "33.3", "7/2/0", "2")),
    ],
)
def test_a_pattern_counts_the_recordings_that_match_alone(patterns, recordings, tokens, mer, cells):
    comparison = compare_runs([in_two_domains("a", 3, 1)], patterns=patterns)
    assert (comparison.recordings, comparison.reference_length) == (recordings, tokens)
    student = comparison.rows[1]
    assert (student.mer, student.rtf, student.speed_up) == pytest.approx((mer, 0.05, 2.0))
    shown = dict(zip(HEAD, comparison_cells(student, list(PAPER_PARTS)), strict=True))
    assert tuple(shown[name] for name in ("zh CER", "en WER", "S/D/I", "loops")) == cells
    assert (
        comparison.notes[0]
        == f"only recordings that match {' or '.join(patterns)}; RTF and speed-up are those over all"
    )


def test_a_pattern_that_all_match_changes_no_figure():
    run = measured("a", 3)
    for rows in run.transcripts.values():
        rows[0]["looping_windows"] = 1
        for row in rows[1:]:
            row["looping_windows"] = 0
    whole, matched = (compare_runs([run], patterns=patterns).rows for patterns in ([], ["*.flac"]))
    assert [asdict(row) for row in matched] == [asdict(row) for row in whole]


@pytest.mark.parametrize(("loops", "cell"), [((1, 0), "2"), ((None, None), "-")])
def test_loops_of_a_subset_are_a_dash_where_one_run_did_not_count_them(loops, cell):
    runs = [in_two_domains("a", 3, 1), in_two_domains("a", 3, 1, loops=loops, folder="runs/old", seed=1)]
    student = compare_runs(runs, patterns=["dev_*"]).rows[1]
    assert comparison_cells(student, list(PAPER_PARTS))[HEAD.index("loops")] == cell
    assert (
        comparison_cells(compare_runs(runs).rows[1], list(PAPER_PARTS))[HEAD.index("loops")] == "1"
    )  # of evaluation.json
    notes = compare_runs(runs, patterns=["dev_*"]).notes
    assert any("loops are unknown" in note for note in notes) is (cell == "-")


def test_runs_need_be_alike_only_where_they_are_counted():
    one, other = in_two_domains("a", 3, 1), measured("b", 2, recordings=2, metric="per")
    for rows in other.transcripts.values():
        for index, row in enumerate(rows):
            row["recording"] = f"/a/dev_{index}.flac"
    assert [row.mer for row in compare_runs([one, other], patterns=["dev_*"]).rows] == pytest.approx([0.4, 0.3, 0.2])
    with pytest.raises(K2DError, match="different data"):
        compare_runs([one, other])


@pytest.mark.parametrize(
    ("recordings", "listed"),
    [(2, r"0\.flac, 1\.flac$"), (9, r"0\.flac, 1\.flac, 2\.flac, 3\.flac, 4\.flac and 4 more$")],
)
def test_a_pattern_that_nothing_matches_is_named_with_what_there_is(recordings, listed):
    words = r"^runs/a: no recording matches --recordings 'Dev\*'; there are " + listed
    with pytest.raises(K2DError, match=words):
        compare_runs([measured("a", 2, recordings=recordings)], patterns=["*.flac", "Dev*"])


# Against another row than the teacher's


def test_the_change_against_a_row_is_paired_and_of_means_over_runs():
    def run(name, wrong, **options):
        """Wrong characters by recording, so that the rates of the draws vary."""
        one = measured(name, 0, recordings=len(wrong), **options)
        student = [
            {**row, "hypothesis": "錯" * count + TEXT[count:]}
            for row, count in zip(one.transcripts["student"], wrong, strict=True)
        ]
        figures = {**one.figures, "student": {**one.figures["student"], "mer": sum(wrong) / 10 / len(wrong)}}
        return replace(one, figures=figures, transcripts={**one.transcripts, "student": student})

    full = run("full", [2, 4, 8, 6], metric="full")
    seeds = [run(f"per-s{seed}", wrong, seed=seed) for seed, wrong in enumerate(([1, 3, 6, 5], [1, 1, 2, 1]))]
    comparison = compare_runs([full, *seeds], against="full")
    rows = {row.name: row for row in comparison.rows}
    assert rows["per"].mers == pytest.approx([0.375, 0.125])
    assert rows["per"].reduction_against == pytest.approx(0.5)
    assert rows["per"].reduction_against_interval == pytest.approx((0.5, 0.5))  # half in every recording: paired
    assert (rows["full"].reduction_against, rows["full"].reduction_against_interval) == (None, None)
    assert rows["teacher"].reduction_against == pytest.approx(1 - 0.4 / 0.5)
    low, high = rows["teacher"].reduction_against_interval
    assert low < 0.2 < high
    ends = [line.split()[-1] for line in render_comparison(comparison).splitlines()[1:4]]
    assert ends[1:] == ["-", "-50]"]
    assert "MER, relative | MER, against full |" in comparison_markdown(comparison)
    assert compare_runs([full, *seeds]).rows[1].reduction_against is None


@pytest.mark.parametrize("name", ["full-1", "full-seed1", "full_2", "full"])
def test_a_row_of_one_run_is_found_without_its_seed(name):
    runs = [measured(name, 2), measured("per-1", 3, metric="per"), measured("per-2", 4, seed=2, metric="per")]
    assert compare_runs(runs, against="full").against == name
    assert compare_runs(runs, against="per").against == "per"


def test_a_name_that_two_rows_begin_with_is_neither():
    runs = [measured("a-1", 2), measured("a-2", 2, metric="per")]
    with pytest.raises(K2DError, match="^--against a: no such row; there are teacher, a-1, a-2$"):
        compare_runs(runs, against="a")


def test_a_row_that_is_not_there_is_refused_with_those_that_are():
    runs = [measured("a", 2), measured("b", 2, metric="per")]
    with pytest.raises(K2DError, match="^--against c: no such row; there are teacher, a, b$"):
        compare_runs(runs, against="c")


# The command


def write_run(folder, run):
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(run.figures), encoding="utf-8")
    lines = [json.dumps({"model": model, **row}) for model, rows in run.transcripts.items() for row in rows]
    (folder / "evaluation_transcripts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(run.recipe)), encoding="utf-8")
    Dataset.from_dict({"keep": [True, True, False], "duration": [1.0] * 3}).save_to_disk(folder / "validated")
    return str(folder)


def test_the_command_reads_folders_and_writes_the_table(tmp_path, capsys):
    runs = [write_run(tmp_path / name, measured(name, 2, metric=name)) for name in ("per", "mer")]
    assert main(["compare", *runs, "--output", str(tmp_path / "table.json")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:4]] == ["teacher", "per", "mer"]
    assert "67%" in printed[2]
    written = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written["rows"]] == ["teacher", "per", "mer"]
    assert main(["compare", *runs, "--output", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text(encoding="utf-8").startswith("|  | runs |")


def test_the_command_takes_patterns_and_a_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # of the terminal
    runs = [write_run(tmp_path / m, in_two_domains(f"lab-{m}", 3, 1, metric=m)) for m in ("full", "per")]
    table = tmp_path / "table.json"
    given = ["--recordings", "dev_*", "--recordings", "dev-broad_1*", "--against", "lab-full", "--output", str(table)]
    assert main(["compare", *runs, *given]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("MER, against lab-full")
    assert printed[3].endswith(" 0% [0, 0]")
    written = json.loads(table.read_text(encoding="utf-8"))
    assert (written["recordings"], written["against"]) == (3, "lab-full")
    assert [row["mers"] for row in written["rows"]] == [[13 / 40] * 2, [7 / 40], [7 / 40]]
    for arguments in (["--recordings", "broad*"], ["--against", "full"]):
        assert main(["compare", *runs, *arguments]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_that_is_no_finished_run_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([tmp_path / "empty"], "no evaluation.json in it"),
        ([tmp_path / "empty", "--output", "table.txt"], "ends in .json or .md"),
    ):
        assert main(["compare", *map(str, arguments)]) == 1
        assert words in capsys.readouterr().err


# Several test sets


def in_sets(name, folder=None, **wrong):
    """A run on sets whose student has so many characters wrong in each."""
    return {key: measured(name, count, folder=folder, places=f"/{key or 'a'}") for key, count in wrong.items()}


def test_each_set_that_all_runs_have_is_compared():
    runs = [in_sets("a", easy=1, hard=3, more=2), in_sets("b", hard=4, easy=2)]
    compared = compare_sets(runs)
    assert {name: [row.mer for row in one.rows] for name, one in compared.items()} == {
        "easy": pytest.approx([0.4, 0.15]), "hard": pytest.approx([0.4, 0.35]),
    }  # fmt: skip
    assert list(compared) == ["easy", "hard"]
    assert compared["easy"].notes[-1] == "not in all runs, and left out: more (runs/a)"
    (average,) = compared_averages(compared)
    assert (average.sets, average.mer["teacher"]) == (["easy", "hard"], pytest.approx(0.4))
    shown = render_comparisons(compared, Screen(80))
    assert [line for line in shown.splitlines() if line in ("easy", "hard")] == ["easy", "hard"]
    assert max(columns_of(line) for line in shown.splitlines() if "█" in line) <= 80
    assert "macro average of easy and hard (language zh), each set counted once" in shown


def test_a_set_without_a_name_is_the_one_of_the_same_recordings():
    old = {"": measured("old", 3, places="/moved/hard")}
    new = in_sets("new", easy=1) | {"hard": replace(measured("new", 2), folder="runs/new")}
    easy = {model: [{**row, "reference": "別的"} for row in rows] for model, rows in new["easy"].transcripts.items()}
    new["easy"] = replace(new["easy"], transcripts=easy)
    assert list(compare_sets([old, new])) == ["hard"]
    assert list(compare_sets([old])) == [""]
    with pytest.raises(
        K2DError, match=r"^the runs have no test set in common: runs/old has one set without a name; runs/new has easy;"
    ):
        compare_sets([old, {"easy": new["easy"]}])


def test_a_difference_within_a_set_names_it():
    one, other = in_sets("a", easy=1), in_sets("b", easy=1)
    other["easy"] = measured("b", 1, beam=1)
    with pytest.raises(K2DError, match=r"^easy: runs/a and runs/b were decoded differently: beam_size 5 and 1"):
        compare_sets([one, other])


def test_patterns_leave_out_sets_and_one_that_matches_nowhere_is_named():
    run = in_sets("a", easy=1, hard=2)
    rows = {
        model: [{**row, "recording": "/x/9.wav"} for row in rows[:1]] for model, rows in run["hard"].transcripts.items()
    }
    run["hard"] = replace(run["hard"], transcripts=rows)
    assert list(compare_sets([run], patterns=["*.wav"])) == ["hard"]
    assert list(compare_sets([run], patterns=["*.wav", "0.*"])) == ["easy", "hard"]
    with pytest.raises(K2DError, match=r"no recording matches --recordings '\*\.mp3'"):
        compare_sets([run], patterns=["*.wav", "*.mp3"])


def test_words_have_a_rate_with_an_interval_where_the_set_has_a_normaliser():
    run = measured("a", 2)
    texts = [("it's the colour", "it is a color"), ("uh", "yes"), ("two hundred", "200")]
    rows = [
        {"recording": f"/a/{n}.wav", "reference": reference, "hypothesis": text}
        for n, (reference, text) in enumerate(texts)
    ]
    for figures in run.figures.values():
        figures.update(wer=1 / 5, normaliser="whisper-english", language="en")
    comparison = compare_runs([replace(run, transcripts=dict.fromkeys(("teacher", "student"), rows))])
    assert [row.wer for row in comparison.rows] == [1 / 5, 1 / 5]
    assert comparison.rows[0].wer_interval == pytest.approx((0.0, 0.25))
    assert "WER %" in comparison_markdown(comparison).splitlines()[0]
    assert "| 20.0 [0.0, 25.0] |" in comparison_markdown(comparison)
    assert "WER %" not in comparison_markdown(compare_runs([measured("a", 2)])).splitlines()[0]


# Where the language changes

SWITCHED, TRANSLATED = "我們開 meeting 談 budget 3 次", "我们开会谈 budget 3次"


def switched(name, seed, hypothesis):
    """A run on four recordings, of which the student wrote one text."""
    one = measured(name, 0, folder=f"runs/{name}-{seed}", seed=seed)
    for model, text in (("teacher", SWITCHED), ("student", hypothesis)):
        for row in one.transcripts[model]:
            row |= {"reference": SWITCHED, "hypothesis": text}
    return one


def test_runs_are_compared_by_them_seeds_together():
    runs = [switched("mine", seed, text) for seed, text in enumerate([SWITCHED, TRANSLATED])]
    comparison = compare_runs(runs)
    teacher, student = comparison.rows
    assert teacher.switching["at"]["rate"] == 0.0
    assert student.switching["at"]["rate"] == 0.1  # of one seed a fifth
    assert student.switching["written_as"]["Latin as Han"]["rate"] == 0.25
    text, markdown = render_comparison(comparison, Screen(80)), comparison_markdown(comparison)
    lines = text.partition("errors in % where")[2].splitlines()
    assert max(map(columns_of, lines[: lines.index("")])) <= 80
    assert "at a switch (20 of 32 tokens) and away" in text  # four recordings, not two times four
    assert "at a switch (20 of 32 tokens) and away:\n\n|  | at | away | " in markdown
    assert "| mine | 10.0 | 0.0 | 12.5 | 12.5 | 25.0 | 0.0 |" in markdown
    part = compare_runs(runs, patterns=["0.flac"])
    assert part.rows[1].switching["at"]["reference_length"] == 2 * 5


def test_runs_that_never_switch_are_compared_without():
    comparison = compare_runs([measured("mine", 1)])
    assert comparison.rows[1].switching is None
    assert "language changes" not in render_comparison(comparison) + comparison_markdown(comparison)
