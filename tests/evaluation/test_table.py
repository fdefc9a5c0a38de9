"""The table of evaluations, as a terminal shows it."""

import pytest

from k2d_hf.evaluation.switching import switching_of
from k2d_hf.evaluation.table import millions, render_table, table_columns, table_rows
from k2d_hf.evaluation.timing import speed_up
from k2d_hf.terminal.screen import Screen, columns_of

TEACHER = {
    "mer": 0.2251, "zh_cer": 0.2, "en_wer": 0.305, "substitutions": 12, "deletions": 3, "insertions": 4,
    "looping_outputs": 0, "rtf": 0.1204, "parameters": 72_593_920, "measurement": {"id": "one"},
}  # fmt: skip
STUDENT = TEACHER | {"mer": 1.25, "zh_cer": None, "looping_outputs": 3, "rtf": 0.086, "parameters": 64_184_320}


def test_models_stand_side_by_side():
    assert render_table({"teacher": TEACHER, "student": STUDENT}).splitlines() == [
        "         MER %  zh CER  en WER  S/D/I   loops  RTF    RTFx  params",
        "teacher  22.5   20.0    30.5    12/3/4  0      0.120  8.3   72.6 M",
        "student  125.0  -       30.5    12/3/4  3      0.086  11.6  64.2 M   1.4x faster",
    ]


@pytest.mark.parametrize(
    ("factors", "ending"),
    [([0.1], "72.6 M"), ([0.1, 0.3, 0.05], "2.0x faster"), ([0.1, 0.2], "2.0x slower"), ([0.1, 0.1], "1.0x faster"), ([0.1, 0.0], "72.6 M")],
)  # fmt: skip
def test_the_last_row_says_how_it_compares_with_the_first(factors, ending):
    table = render_table({f"model {index}": TEACHER | {"rtf": rtf} for index, rtf in enumerate(factors)})
    assert table.splitlines()[-1].endswith(ending)
    assert table.count("x faster") + table.count("x slower") <= 1


def test_cells_follow_the_columns():
    (row,) = table_rows({"teacher": TEACHER})
    assert dict(zip(table_columns({"teacher": TEACHER}), row[1:], strict=True)) == {
        "MER %": "22.5",
        "zh CER": "20.0",
        "en WER": "30.5",
        "S/D/I": "12/3/4",
        "loops": "0",
        "RTF": "0.120",
        "RTFx": "8.3",
        "params": "72.6 M",
    }


def test_another_pair_has_its_own_columns():
    """Those of one script have none but MER, and a model that wrote nothing of a part has a dash there."""
    other = TEACHER | {"zh_cer": None, "en_wer": None, "parts": {"hi WER": 0.2, "Latin WER": 0.5}}
    table = {"teacher": other, "student": other | {"parts": {"hi WER": 0.1}}}
    assert table_columns(table)[:4] == ["MER %", "hi WER", "Latin WER", "S/D/I"]
    assert [row[1:4] for row in table_rows(table)] == [["22.5", "20.0", "50.0"], ["22.5", "10.0", "-"]]
    assert table_columns({"teacher": other | {"parts": {}}})[:2] == ["MER %", "S/D/I"]


def test_what_was_inserted_stands_below_where_there_is_any():
    inserted = {"insertions_by_script": {"Latin": 3, "marks": 223, "Han": 1200}}
    models = {
        "teacher": TEACHER | {"insertions_by_script": {}},
        "student_before": STUDENT | inserted,
        "student": STUDENT,
    }
    assert render_table(models).splitlines()[4:] == ["inserted: student, before 1,200 Han, 3 Latin, 223 marks"]
    many = render_table({f"a model of a long name {n}": TEACHER | inserted for n in range(5)}).splitlines()
    assert all(len(line) <= 80 for line in many[6:])
    assert " ".join(" ".join(many[6:]).split()).count("1,200 Han, 3 Latin, 223 marks") == 5


def test_numbers():
    assert millions(72_593_920) == "72.6 M"
    assert speed_up(TEACHER | {"rtf": 0.2}, TEACHER | {"rtf": 0.05}) == pytest.approx(4.0)


@pytest.mark.parametrize("measurement", [None, {}, {"id": None}, {"id": "two"}])
def test_speeds_that_were_not_measured_together_are_not_compared(measurement):
    student = STUDENT | {"measurement": measurement}
    assert speed_up(TEACHER, student) is None
    assert speed_up(student, student | {"rtf": 0.01}) == (None if measurement != {"id": "two"} else pytest.approx(8.6))
    assert render_table({"teacher": TEACHER, "student": student}).endswith("64.2 M")


@pytest.mark.parametrize("length", [4, 30, 300])
def test_folders_however_deep_leave_the_table_in_its_terminal(length):
    names = [f"/{'x' * length}/teacher", f"/{'x' * length}/student"]
    table = render_table(dict(zip(names, (TEACHER, STUDENT), strict=True)), Screen(80))
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "x faster" in table


SWITCHED = "我們開 meeting 談 budget 3 次"
TEXTS = (SWITCHED, "我们开会谈 budget 3次"), ("好", "坏")


def evaluations(names):
    return {
        name: {**(STUDENT if at else TEACHER), "switching": switching_of([TEXTS[at], (SWITCHED, SWITCHED)])}
        for at, name in enumerate(names)
    }


def test_the_table_stands_below_that_of_the_models():
    *_, blank, title, head, teacher, student = render_table(evaluations(["teacher", "student_before"])).splitlines()
    assert (blank, title) == ("", "errors in % where the language changes, at a switch (10 of 16 tokens) and away")
    assert head.split("  ")[-1].strip() == "Han as Latin"
    assert teacher.split() == ["teacher", "10.0", "0.0", "12.5", "12.5", "25.0", "0.0"]
    assert student.split() == ["student,", "before", "0.0", "25.0", "0.0", "0.0", "0.0", "0.0"]


@pytest.mark.parametrize("name", ["student_before", "a model of a long name", "/" + "x" * 300])
@pytest.mark.parametrize("reference", [SWITCHED, "да meeting да"])
def test_no_line_is_wider_than_the_terminal(name, reference):
    figures = {"teacher": TEACHER, name: {**STUDENT, "switching": switching_of([(reference, reference)])}}
    lines = render_table(figures, Screen(80)).splitlines()
    assert max(map(columns_of, lines)) <= 80
    assert any(line.startswith("errors in %") for line in lines)
