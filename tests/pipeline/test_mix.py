"""Speech whose text is known, in a run: what it writes and says, what is done again, and what is refused before it."""

import io
import json
import re
import shutil

import pytest
from datasets import load_from_disk

from k2d_hf import K2DError, load_recipe, run_recipe
from k2d_hf.cli import main
from k2d_hf.terminal.console import Console

MIX = """
mix:
  talks: {source: talks, language: zh}
  corpus: {source: corpus.tsv, share: 0.25, language: en}
"""
SRT = "1\n00:00:01,000 --> 00:00:05,000\n今天 given\n\n2\n00:00:05,500 --> 00:00:09,000\nthe second\n"


@pytest.fixture
def place(workplace, tmp_path):
    """The folder of a run with two sources, in which a test may change what it likes; a file without a text is in it."""
    folder = shutil.copytree(workplace, tmp_path / "place")
    (folder / "talks").mkdir()
    for name in ("one", "two"):
        shutil.copy(folder / "dev.flac", folder / "talks" / f"{name}.flac")
    (folder / "talks" / "one.srt").write_text(SRT, encoding="utf-8")
    rows = "".join(f"recordings/two.flac\t語料 number {index}\n" for index in range(1))
    (folder / "corpus.tsv").write_text("path\tsentence\n" + rows + "dev.flac\t另一句\n", encoding="utf-8")
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8").replace("max_steps: 2", "num_train_epochs: 2")
    (folder / "recipe.yaml").write_text(recipe.replace("evaluation: dev.jsonl\n", "") + MIX, encoding="utf-8")
    return folder


def run(place, *sets):
    """The stages that did work, and the lines of all."""
    stream = io.StringIO()
    given = [f"output={place / 'run'}", *sets]
    run_recipe(load_recipe(place / "recipe.yaml", given), console=Console(stream=stream))
    lines = dict(re.findall(r"^\[\d/\d\] (\w+) +(.*)$", stream.getvalue(), re.MULTILINE))
    return [name for name, line in lines.items() if not line.startswith("up to date: ")], lines


@pytest.mark.slow
def test_a_run_learns_from_all_and_says_so(place):
    did, lines = run(place)
    assert did == ["label", "validate", "mix", "student", "targets", "distil", "card"]
    assert "1 chunk of talks; 2 chunks of corpus, 25% of an epoch (1 left out, see" in lines["mix"]
    assert "2 chunks of corpus, 25% of an epoch (1); 1 chunk of talks" in lines["distil"]
    rows = load_from_disk(str(place / "run" / "mixed")).to_list()
    own = [row for row in rows if row["source"] is None]
    assert [(row["source"], row["language"], row["keep"]) for row in rows[len(own) :]] == [
        ("talks", "zh", True), ("corpus", "en", True), ("corpus", "en", True),
    ]  # fmt: skip
    assert all(row["auxiliary_text"] is None for row in rows[len(own) :])
    targets = load_from_disk(str(place / "run" / "targets"))
    assert all(targets["target_forms"])
    left_out = (place / "run" / "mixing_left_out.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["reason"] for line in left_out.splitlines()] == ["without text"]
    card = (place / "run" / "student" / "README.md").read_text(encoding="utf-8")
    assert "| text that was given | corpus (0.8 min, 2 chunks, 25% of each epoch); talks (0.1 min, 1 chunk) |" in card
    assert f"| speech kept | 1.0 min (100%), {len(own)} chunks |" in card

    assert run(place)[0] == []
    assert run(place, "mix.corpus.share=0.5")[0] == ["distil", "card"]  # targets are of all, however they are drawn
    (place / "talks" / "one.srt").write_text(SRT.replace("second", "third"), encoding="utf-8")
    assert run(place, "mix.corpus.share=0.5")[0] == ["mix", "targets", "distil", "card"]
    did, _ = run(place, "mix=null")
    assert did == ["targets", "distil", "card"]
    assert not [path.name for path in (place / "run").iterdir() if path.name.startswith("mix")]


def test_a_plan_counts_them(place, capsys):
    given = ["--set", f"output={place / 'run'}"]
    assert main(["run", "--dry-run", str(place / "recipe.yaml"), *given]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "texts 1 chunks of talks; 2 chunks of corpus, 25% of an epoch" in shown
    assert re.search(r"\[3/7\] mix +to run", shown)


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (["mix.corpus.share=1"], "mix: shares: corpus 1.0: must be above 0, and below 1"),
        (["mix.corpus.share=0.6", "mix.talks.share=0.5"], "together must be below 1; the rest is of the other sources"),
        (["mix.corpus.share=2"], "mix.corpus.share: 2.0 is outside 0 to 1"),
        (["mix.corpus.sharee=0.5"], "mix.corpus.sharee: no such setting; did you mean share?"),
        (["mix.corpus.source=gone.tsv"], "mix.corpus: 'gone.tsv' does not exist, neither beside the recipe nor from"),
        (["mix.corpus.language=klingon"], "mix.corpus.language: 'klingon' is unknown"),
        (["mix.corpus.streaming=true"], "mix.corpus.streaming: the chunks of an epoch are drawn from all of them"),
        (["distil.shares={corpus: 0.5}"], "distil.shares: in a recipe each source has its own (mix.NAME.share)"),
        (
            ["rounds=2", "adapt.distil.shares={corpus: 0.5}"],
            "adapt: distil.shares: in a recipe each source has its own",
        ),
        (["mix.corpus.source=recordings"], "mix.corpus: "),
        (["mix.corpus.reference_column=said"], "no column said; it has path, sentence; set reference_column to one"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_first_stage(place, sets, line):
    with pytest.raises(K2DError) as raised:
        run(place, *sets)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (place / "run" / "chunks").exists()


def test_one_source_needs_no_name(place):
    recipe = load_recipe(place / "recipe.yaml", ["mix={source: corpus.tsv, share: 0.2}"])
    assert list(recipe.sources) == ["given"]
    assert recipe.training["shares"] == {"given": 0.2}
    assert recipe.sources["given"].source == str(place / "corpus.tsv")
    assert load_recipe(place / "recipe.yaml", ["mix=null"]).training == recipe.distil
    assert load_recipe(place / "recipe.yaml", ["mix=corpus.tsv"]).labels == "mixed"


def test_the_command_adds_a_source_at_a_time(place, tmp_path, capsys):
    chunks = load_from_disk(str(place / "chunks")) if (place / "chunks").exists() else None
    assert chunks is None
    label = ["label", str(place / "recordings"), "--teacher", str(place / "teacher"), "--engine", "transformers"]
    assert main([*label, "--beam-size", "1", "--language", "zh", "--output", str(tmp_path / "chunks")]) == 0
    mix = ["mix", str(tmp_path / "chunks"), str(place / "corpus.tsv"), "--name", "corpus"]
    assert main([*mix, "--output", str(tmp_path / "mixed")]) == 0
    mixed, made = str(tmp_path / "mixed"), ["--language", "zh", "--output", str(tmp_path / "both")]
    assert main(["mix", mixed, str(place / "talks"), "--name", "talks", *made]) == 0
    rows = load_from_disk(str(tmp_path / "both"))
    assert [name for name in rows["source"] if name] == ["corpus", "corpus", "talks"]
    assert '"without text"' in (tmp_path / "both.left_out.jsonl").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["mix", mixed, str(place / "corpus.tsv"), "--name", "corpus", *made[2:], "--output", "x"]) == 1
    error = capsys.readouterr().err
    assert error == f"k2d: {mixed}: there are chunks of 'corpus' already; give --name another\n"
