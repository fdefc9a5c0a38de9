"""Tables of recordings: Common Voice's without quotes, spreadsheets' with them, and columns as people call them."""

import csv
import io
import json
import uuid

import pytest
from datasets import ClassLabel, Dataset
from far_files import put
from hypothesis import given
from hypothesis import strategies as st
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.cli import main
from k2d_hf.data.recording_rows import MORE_REFERENCE_COLUMNS, REFERENCE_COLUMNS
from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.tab_separated import tab_separated
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.evaluation.long_form import load_long_form

HEADER = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tage\tlocale\tsegment"
SENTENCES = [
    '"你好," 他說',
    'she said "hi',
    '"',
    'an inch is 1"',
    '"never closed',
    "plain, with commas",
    'a "b" c',
    '"b" and "c"',
    '他說 "好',
    'ends with one"',
    "",
    "last",
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def rows_of(text):
    lines = io.StringIO(text, newline="\n")
    return [cells for _, cells in tab_separated(iter(list(enumerate(lines, start=1))))]


@pytest.fixture(params=["disk", "address"])
def common_voice(request, tmp_path):
    """A table as Common Voice has it: no quoting, paths from `clips/`, the language in `locale`."""
    base = str(tmp_path / "zh-TW") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/zh-TW"
    lines = [f"c{n}\tcv_{n}.mp3\ts{n}\t{text}\t\t2\t\tzh-TW\t" for n, text in enumerate(SENTENCES)]
    files = {"validated.tsv": "\n".join([HEADER, *lines]).encode() + b"\n", "clips/cv_0.mp3": b"x"}
    for name, content in files.items():
        if request.param == "disk":
            (tmp_path / "zh-TW" / "clips").mkdir(parents=True, exist_ok=True)
            (tmp_path / "zh-TW" / name).write_bytes(content)
        else:
            put(f"{base}/{name}", content)
    return base


@pytest.mark.parametrize("streaming", [False, True])
def test_common_voice_is_read_as_it_is(common_voice, streaming):
    rows = list(load_recordings(f"{common_voice}/validated.tsv", streaming=streaming))
    assert [row["recording"] for row in rows] == [f"{common_voice}/clips/cv_{n}.mp3" for n in range(len(SENTENCES))]
    assert [row["reference"] for row in rows] == [text or None for text in SENTENCES]
    assert {row["language"] for row in rows} == {"zh-TW"}


def test_paths_are_from_the_clips_only_where_they_are_not_beside_the_table(tmp_path):
    table = "client_id\tpath\tsentence\nc\ta.mp3\tx\n"
    for name in ("both", "clips_alone", "none", "spelled_out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.tsv").write_text(table.replace("a.mp3", "clips/a.mp3") if "out" in name else table)
    for path in ("both/a.mp3", "both/clips/a.mp3", "clips_alone/clips/a.mp3", "spelled_out/clips/a.mp3"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    found = {name.name: load_recordings(name / "m.tsv")["recording"][0] for name in tmp_path.iterdir() if name.is_dir()}
    assert found == {
        "both": f"{tmp_path}/both/a.mp3",
        "clips_alone": f"{tmp_path}/clips_alone/clips/a.mp3",
        "none": f"{tmp_path}/none/a.mp3",
        "spelled_out": f"{tmp_path}/spelled_out/clips/a.mp3",
    }


QUOTED = [
    [["audio", "text"], ["a.wav", "one\ttwo"], ["b.wav", 'say "hi"'], ["c.wav", '"all of it"']],
    [["audio", "text"], ["a.wav", "one\ntwo"], ["b.wav", "three\r\nfour\nfive"], ["c.wav", "six"]],
    [["audio", "text", "x"], ["a\nb.wav", "one", ""], ["c.wav", '"', '""'], ["d.wav", 'e"\n"f', "g\th\n"]],
    [["au\tdio", "te\nxt"], ["a.wav", "x"]],
]


@pytest.mark.parametrize("rows", QUOTED)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_with_quotes_is_read_as_it_was_written(rows, quoting, end):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t", quoting=quoting, lineterminator=end).writerows(rows)
    assert rows_of(file.getvalue()) == rows


def test_a_stray_quote_merges_no_rows_however_far_the_next_one_is():
    rows = [
        ["path", "sentence"],
        ["0", '"opens'],
        *([str(n), "plain"] for n in range(1, 50)),
        ["50", 'closes"'],
        ["51", "x"],
    ]
    assert rows_of("\n".join("\t".join(row) for row in rows) + "\n") == rows
    for stray in ('"', '""" ', '"a" b', 'a"', '"a""', '" "" '):
        rows[25][1] = stray
        assert rows_of("\n".join("\t".join(row) for row in rows)) == rows


CELLS = st.lists(st.sampled_from(['"', '""', "a", ",", " ", "'", "好", "\\"]), max_size=6).map("".join)


@given(st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=12)))
def test_no_quote_merges_rows_or_cells_of_a_table_without_quoting(rows):
    width = len(rows[0]) if rows else 2
    header = [f"column {number}" for number in range(width)]
    found = rows_of("".join("\t".join(row) + "\n" for row in [header, *rows]))
    assert len(found) == len(rows) + 1
    for cells, row in zip(found[1:], rows, strict=True):
        assert len(cells) == width
        for cell, given_cell in zip(cells, row, strict=True):
            assert cell in (given_cell, given_cell[1:-1].replace('""', '"'))


def test_a_comma_separated_table_keeps_its_quoting(tmp_path):
    (tmp_path / "m.csv").write_text('audio,text\na.wav,"one, two\nthree"\nb.wav,say ""hi""\n')
    assert load_recordings("m.csv")["reference"][:] == ["one, two\nthree", 'say ""hi""']
    (tmp_path / "m.csv").write_text('audio,text\na.wav,"one" two\nb.wav,x\n')
    with pytest.raises(K2DError, match=r"m\.csv, line 2: not CSV"):
        load_recordings("m.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "\ufeff audio , text\t, Language \na.wav,x,zh\n"),
        ("m.tsv", "\ufeff audio \t text\t Language \na.wav\tx\tzh\n"),
        ("m.tsv", "\n\n\ufeffaudio \ttext \tx\r\na.wav\tx\tzh\r\n"),
    ],
)
def test_names_of_columns_have_no_blanks_around_them(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    (row,) = load_recordings(name)
    assert (row["recording"], row["reference"]) == (f"{tmp_path}/a.wav", "x")


@pytest.mark.parametrize(("name", "line"), [("m.csv", "a.wav,x,and more"), ("m.tsv", "a.wav\tx\tand more")])
def test_a_row_with_too_many_cells_is_named(tmp_path, name, line):
    separator = "," if name.endswith("csv") else "\t"
    (tmp_path / name).write_text(f"audio{separator}text\n{line}\n")
    with pytest.raises(K2DError, match="line 2: 3 cells for 2 columns, the one too many and more"):
        load_recordings(name)
    (tmp_path / name).write_text(f"audio{separator}text\na.wav{separator}x{separator}{separator}\n")
    assert load_recordings(name)["reference"][:] == ["x"]


# Columns


@pytest.mark.parametrize("column", [*REFERENCE_COLUMNS, *MORE_REFERENCE_COLUMNS])
def test_transcripts_are_found_in_manifests_and_data_sets(tmp_path, column, caplog):
    row = {"audio": "a.wav", column: "好"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    for source in ("m.jsonl", Dataset.from_list([row])):
        assert load_recordings(source)["reference"][:] == ["好"]
    assert not caplog.text


def test_what_was_known_before_comes_first_and_what_is_no_text_is_no_transcript():
    rows = [{"audio": "a.wav", "text": "x", "transcript": "y"}, {"audio": "b.wav", "text": None, "transcript": "z"}]
    assert load_recordings(Dataset.from_list(rows))["reference"][:] == ["x", "z"]
    segments = [{"start": 0.0, "text": "說"}]
    data = Dataset.from_list([{"audio": "a.wav", "transcript": [1, 2], "segments": segments}])
    assert load_recordings(data)["reference"][:] == ["說"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_that_looks_like_transcripts_and_is_not_read_is_named(tmp_path, streaming, caplog):
    row = {"audio": "a.wav", "spoken_text": "x", "speaker": 1, "words": ["x"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    for source in ("m.jsonl", Dataset.from_list([row])):
        caplog.clear()
        load_recordings(source, streaming=streaming)
        assert "no transcripts are read, unless reference_column names spoken_text" in caplog.text
        rows = load_recordings(source, reference_column="spoken_text", streaming=streaming)
        assert [one["reference"] for one in rows] == ["x"]
    with pytest.raises(
        K2DError, match="no column spoken; it has audio, spoken_text, speaker, words; set reference_col"
    ):
        load_recordings("m.jsonl", reference_column="spoken", streaming=streaming)


def test_evaluation_without_references_names_the_columns_that_there_are(tmp_path, capsys, workplace):
    (tmp_path / "dev.csv").write_text("audio,said,who\na.wav,x,1\n")
    words = "reference_column, of audio, said, who"
    with pytest.raises(K2DError, match=words):
        evaluate_model(ScriptedTranscriber({}), load_recordings("dev.csv"))
    with pytest.raises(K2DError, match=words):
        load_long_form("dev.csv", join_by="who")
    models = [str(workplace / "teacher"), "--data", "dev.csv"]
    assert main(["evaluate", *models]) == 1
    assert words in capsys.readouterr().err
    recipe = (workplace / "recipe.yaml").read_text(encoding="utf-8").replace("dev.jsonl", "dev.csv")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("recordings: rec", f"recordings: {workplace}/rec"))
    assert main(["run", "recipe.yaml"]) == 1
    assert words in capsys.readouterr().err


def test_the_column_can_be_named_in_the_recipe_and_as_an_option(tmp_path, workplace, capsys):
    (tmp_path / "dev.csv").write_text(f"audio,said\n{workplace}/dev.flac,今天講 machine learning\n")
    options = ["--data", "dev.csv", "--reference-column", "said", "--language", "Mandarin", "--beam-size", "1"]
    assert main(["evaluate", str(workplace / "teacher"), *options, "--output", "figures.json"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    (figure,) = figures.values()
    assert (figure["recordings"], figure["language"]) == (1, "zh")


def test_the_language_is_in_locale_or_lang_too(tmp_path):
    rows = [
        {"audio": "a.wav", "locale": "zh-TW", "language": None, "lang": "en"},
        {"audio": "b.wav", "locale": None, "language": "English", "lang": "zh"},
        {"audio": "c.wav", "locale": None, "language": None, "lang": "cmn"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in ("m.jsonl", Dataset.from_list(rows)):
        assert load_recordings(source)["language"][:] == ["zh-TW", "English", "cmn"]
    labels = Dataset.from_dict({"audio": ["a.wav", "b.wav"], "locale": [1, -1]})
    data = labels.cast_column("locale", ClassLabel(names=["en-US", "zh-TW"]))
    assert load_recordings(data)["language"][:] == ["zh-TW", None]
    assert load_recordings(Dataset.from_dict({"audio": ["a.wav"], "lang": [3]}))["language"][:] == [None]
