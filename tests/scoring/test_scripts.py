"""One script for labels: which characters are converted, and that nothing else changes, from labels to soft targets."""

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import K2DDataCollator, TeacherHypotheses, label_recordings, load_recordings, mixed_tokens, validate_labels
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError
from k2d_hf.scoring.scripts import SCRIPTS, to_script

TABLE = [
    # written, simplified, traditional, Taiwan, Hong Kong
    ("我们用GPU来train一个model", "我们用GPU来train一个model", *["我們用GPU來train一個model"] * 3),
    ("系统里边的面条", "系统里边的面条", "系統裏邊的麪條", "系統裡邊的麵條", "系統裏邊的麪條"),
    ("為什麼這裡說著", "为什么这里说着", "爲什麼這裏說着", "為什麼這裡說著", "為什麼這裏説着"),
    ("里長說公里後面的皇后", "里长说公里后面的皇后", "里長說公里後面的皇后", "里長說公里後面的皇后", "里長説公里後面的皇后"),
    ("我們在台湾的里長說", "我们在台湾的里长说", "我們在臺灣的里長說", "我們在臺灣的里長說", "我們在台灣的里長説"),
    ("这本著作看着你", "这本著作看着你", "這本著作看着你", "這本著作看著你", "這本著作看着你"),
    ("Thank you, everyone.", *["Thank you, everyone."] * 4),
    ("", *[""] * 4),
]  # fmt: skip


@pytest.mark.parametrize(("script", "column"), zip(SCRIPTS, (1, 2, 3, 4), strict=True))
def test_a_text_in_each_script(script, column):
    for row in TABLE:
        assert to_script([row[0]], script) == [row[column]]


def test_what_could_be_either_goes_by_the_recording():
    assert to_script(["他在里面", "我们说话"], "traditional-tw") == ["他在裡面", "我們說話"]
    assert to_script(["里長", "我們說話"], "traditional-tw") == ["里長", "我們說話"]
    assert to_script(["里長"], "traditional-tw") == ["里長"]  # nobody knows


@given(st.lists(st.text(st.sampled_from("我们用來train里裡裏后後面麵台臺灣湾著着說说説 ,。\ud800a")), max_size=4))
def test_texts_keep_what_is_said_and_a_second_time_changes_nothing(texts):
    for script in SCRIPTS:
        once = to_script(texts, script)
        assert to_script(once, script) == once
        assert [mixed_tokens(text) for text in to_script(once, "simplified")] == [mixed_tokens(text) for text in once]
        assert len(once) == len(texts)


# Labels

WRITTEN = [
    (0.5, 3.2, " 我们用 GPU 来 train"),
    (4.0, 7.0, " 里面說著"),
    (20.0, 26.0, " 后天再講"),
    (40.0, 44.0, " 系统里边"),
]


@pytest.fixture
def recordings(tmp_path):
    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 8000 * 50, 16000)
    return load_recordings(tmp_path)


def label(recordings, *, language="zh", **settings):
    teacher = ScriptedTranscriber({50.0: WRITTEN}, language=language)
    return label_recordings(recordings, teacher, language=None, **settings), teacher


def test_labels_have_one_script_and_their_times_and_no_model_runs_again(recordings, tmp_path):
    plain, _ = label(recordings, shards_dir=tmp_path / "shards")
    chunks, teacher = label(recordings, script="traditional-tw", shards_dir=tmp_path / "shards")
    assert teacher.calls == []
    segments = [one for row in chunks for one in row["segments"]]
    assert [one["text"] for one in segments] == [" 我們用 GPU 來 train", " 里面說著", " 后天再講", " 系統裡邊"]
    for name in ("recording", "start", "duration", "next_start", "language"):
        assert chunks[name][:] == plain[name][:]
    times = [[(one["start"], one["end"]) for one in row["segments"]] for row in (*chunks, *plain)]
    assert times[: len(chunks)] == times[len(chunks) :]
    assert chunks["previous_text"][1] == chunks["text"][0] != plain["text"][0]


@pytest.mark.parametrize(("language", "changes"), [("zh", True), ("yue", True), ("en", True), ("ja", False)])
def test_japanese_keeps_its_characters(recordings, language, changes):
    assert (
        label(recordings, language=language, script="simplified")[0]["text"] != label(recordings)[0]["text"]
    ) is changes


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("metric", ["mer", "per", "composite"])
def test_a_script_is_no_disagreement(recordings, script, metric):
    chunks, _ = label(recordings, script=script)
    written = {row["duration"]: text for row, text in zip(chunks, label(recordings)[0]["text"], strict=True)}
    validated = validate_labels(chunks, ScriptedTranscriber(written), metric=metric, threshold=0.0)
    assert validated["distance"][:] == [0.0] * len(chunks)
    assert validated["keep"][:] == [True] * len(chunks)


def test_soft_targets_are_those_of_the_label_in_its_script(recordings, tiny_whisper, processor):
    """What the teacher gives its probabilities for is what the student reads, not what the teacher wrote."""
    chunks, _ = label(recordings, script="traditional")
    make = K2DDataCollator(processor, language="zh", timestamp_probability=0, previous_text_probability=0)
    rows = add_soft_targets(chunks, tiny_whisper, make)
    plain = add_soft_targets(label(recordings)[0], tiny_whisper, make)
    special = make.encoder.special
    for row, other in zip(rows, plain, strict=True):
        ids = make.encoder.label_ids(row["text"], row["segments"], language="zh", timestamps=False)
        assert processor.tokenizer.decode(ids[4:-1]).strip() == row["text"] != other["text"]
        assert ids[3] == special.no_timestamps
        assert len(row["teacher_hidden"]) == len(ids) - 1
        assert row["teacher_hidden"] != other["teacher_hidden"]


def test_an_unknown_script_is_one_line():
    with pytest.raises(K2DError, match="script 'tw': choose one of simplified, traditional, traditional-tw"):
        TeacherHypotheses("unused", script="tw")
