"""A student on the Hub, over HTTP: what is uploaded, what is tried again, and what is refused before any work."""

import json
import shutil
import struct

import pytest
from fresh_process import PythonProcess, start_python
from hub_repositories import Repository
from hub_server import FINE_READER, FINE_WRITER, READER, STRANGER, WRITER, LocalHub, serving
from safetensors.torch import load_file, save_file
from student_layout import check_layout

from k2d_hf.publishing.card_rendering import render_card
from publishing.card_parts import facts

CARD = "---\nlanguage: zh\n---\n\n# A student\n"
CLUTTER = (
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin", "training_log.json"),
    *("pytorch_model.bin", "adapter_model.safetensors", "_journal.json", ".env", "events.out.tfevents", "notes.md"),
    *("checkpoint-2/model.safetensors", "logs/log.txt", "ctranslate2/model.bin", "modeling.py"),
)
SETUP = """
import time
from k2d_hf.cli import main
from k2d_hf.publishing import retry
from k2d_hf.publishing.hub import push_student
time.sleep = lambda seconds: None
"""


@pytest.fixture(scope="module")
def hub():
    """The Hub of this module; each test pushes to a repository of its own."""
    hub = LocalHub()
    with serving(hub):
        yield hub


@pytest.fixture(scope="module")
def python(hub, tmp_path_factory):
    """A process that talks to it."""
    with PythonProcess(tmp_path_factory.mktemp("home"), HF_ENDPOINT=hub.address) as python:
        assert python.run(SETUP).error is None
        yield python


@pytest.fixture(autouse=True)
def _forget(hub):
    hub.forget()


@pytest.fixture(scope="module")
def saved(tiny_whisper_dir, processor, tmp_path_factory):
    """The student alone, as it is written by this package."""
    from transformers import WhisperForConditionalGeneration

    from k2d_hf.models.student_folder import save_student

    folder = tmp_path_factory.mktemp("saved")
    save_student(WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir), processor, folder)
    return folder


@pytest.fixture(scope="module")
def original(saved, tmp_path_factory):
    """A student with its card, among all that training leaves in a folder."""
    folder = shutil.copytree(saved, tmp_path_factory.mktemp("student") / "student")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    for name in CLUTTER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.fixture
def student(original, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(original, tmp_path / "student")


@pytest.fixture
def push(python):
    """Push, and give back what became of it."""

    def push(folder, repo_id, **options):
        options = {"token": WRITER, **options}
        return python.run(f"result = vars(push_student({str(folder)!r}, {repo_id!r}, **{options!r}))")

    return push


@pytest.fixture(scope="module")
def files(saved):
    """What the Hub is to hold, by path."""
    return {path.name: path.read_bytes() for path in saved.iterdir()} | {"README.md": CARD.encode()}


def test_the_hub_holds_the_student_and_nothing_else(hub, push, original, files):
    done = push(original, "me/first")
    assert done.error is None
    repository = hub.repository("me/first")
    assert repository.contents() == files
    assert repository.private
    assert repository.titles() == ["Student, by k2d_hf 0.1.0"]
    assert done.result["uploaded"] == sorted(files)
    assert (done.result["commit"], done.result["url"]) == (repository.log()[0].sha, f"{hub.address}/me/first")


def test_what_transformers_saved_alone_is_completed_on_its_way(hub, push, tiny_whisper_dir, files, processor, tmp_path):
    """As a folder of an earlier version, whose repository still has a file over which transformers 4.49 stumbles."""
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "student")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    content = before["processor_config.json"]
    hub.add(Repository("me/early", private=True)).commit("early", {"processor_config.json": content})
    assert push(folder, "me/early").error is None
    held = hub.repository("me/early").contents()
    assert held == {name: content for name, content in files.items() if name != "README.md"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert push(folder, "me/early").result["uploaded"] == []
    for name, content in held.items():
        (tmp_path / "fetched").mkdir(exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(content)
    check_layout(tmp_path / "fetched", processor)


def test_the_token_goes_to_the_hub_and_not_to_where_large_files_lie(hub, push, original):
    hub.objects.clear()
    push(original, "me/stored")
    tokens = {request.kind: request.token for request in hub.asked}
    assert tokens["upload"] is None
    assert tokens["commit"] == WRITER


@pytest.mark.parametrize("revision", [None, "v2"])
def test_where_nothing_has_changed_nothing_is_written(hub, push, student, revision):
    name = f"me/again-{revision}"
    first = push(student, name, revision=revision).result
    hub.forget()
    (student / "optimizer.pt").write_bytes(b"changed")
    again = push(student, name, revision=revision).result
    assert (again["uploaded"], again["deleted"], again["unchanged"]) == ([], [], len(first["uploaded"]))
    assert again["commit"] == first["commit"]
    assert len(hub.repository(name).titles(*filter(None, [revision]))) == 1
    assert {request.method for request in hub.asked} <= {"GET", "HEAD"}


def test_only_what_has_changed_goes_up(hub, push, student):
    push(student, "me/card")
    (student / "README.md").write_text("# Another\n", encoding="utf-8")
    hub.forget()
    assert push(student, "me/card", message="Better card").result["uploaded"] == ["README.md"]
    assert "upload" not in hub.kinds()
    assert hub.repository("me/card").contents()["README.md"] == b"# Another\n"
    assert hub.repository("me/card").titles()[0] == "Better card"


def test_an_earlier_student_leaves_nothing_behind_that_would_be_loaded(hub, push, student):
    push(student, "me/shards")
    hub.repository("me/shards").commit("by hand", {"ctranslate2/model.bin": b"old", "picture.png": b"mine"})
    (student / "model.safetensors").rename(student / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"proj_out.weight": "model-00001-of-00001.safetensors"}}
    (student / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (student / "README.md").unlink()
    answer = push(student, "me/shards")
    assert f"{student} has no README.md, so the repository gets no card; k2d run writes one" in answer.said
    done = answer.result
    assert done["uploaded"] == ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert done["deleted"] == ["ctranslate2/model.bin", "model.safetensors"]
    assert {"picture.png", "README.md"} <= hub.repository("me/shards").contents().keys()


def test_results_on_benchmarks_go_up_with_the_student_and_leave_with_it(hub, push, student):
    result, mine = ".eval_results/k2d-libri.yaml", ".eval_results/gpqa.yaml"
    (student / ".eval_results").mkdir()
    (student / result).write_text("- value: 1\n", encoding="utf-8")
    (student / mine).write_text("of somebody else\n", encoding="utf-8")
    assert result in push(student, "me/results").result["uploaded"]
    hub.repository("me/results").commit("by hand", {".eval_results/other.yaml": b"by hand"})
    assert hub.repository("me/results").contents().keys() >= {result, ".eval_results/other.yaml"}
    assert mine not in hub.repository("me/results").contents()
    (student / result).unlink()
    assert push(student, "me/results").result["deleted"] == [result]
    assert ".eval_results/other.yaml" in hub.repository("me/results").contents()


def test_a_branch_is_made_and_the_main_one_left_alone(hub, push, original, files):
    assert push(original, "me/branches", revision="v1/try").error is None
    assert hub.repository("me/branches").contents("v1/try") == files
    assert hub.repository("me/branches").contents() == {}


def test_a_private_repository_is_refused_to_a_stranger(push, python, original):
    push(original, "me/secret")
    code = (
        "from huggingface_hub import hf_hub_download\nresult = hf_hub_download('me/secret', 'config.json', token=TOKEN)"
    )
    for token in (False, STRANGER):
        assert python.run(code.replace("TOKEN", repr(token))).error.startswith("RepositoryNotFoundError")
    assert python.run(code.replace("TOKEN", repr(WRITER))).error is None


@pytest.mark.parametrize("how", [500, "cut", "drop"])
def test_what_passes_is_tried_again_and_ends_in_one_commit(hub, push, original, files, how):
    """A status, a connection cut in the middle of what is sent, and one cut after the work but before the answer."""
    hub.objects.clear()
    stations = (
        "whoami",
        "info",
        "create",
        "tree",
        "validate-yaml",
        "preupload",
        "lfs-batch",
        "upload",
        "lfs-verify",
        "commit",
    )
    for kind in stations:
        hub.fail(kind, how)
    assert push(original, f"me/try-{how}").error is None
    assert hub.repository(f"me/try-{how}").contents() == files
    assert len(hub.repository(f"me/try-{how}").titles()) == 1
    assert all(failure.times == 0 for failure in hub.failures)


def test_a_hub_that_falls_silent_is_not_waited_for(hub, push, python, original, files):
    python.run("retry.REQUEST_SECONDS = 1")
    hub.fail("commit", "hang")
    assert push(original, "me/silent").error is None
    python.run("retry.REQUEST_SECONDS = 60")
    assert hub.repository("me/silent").contents() == files
    assert len(hub.repository("me/silent").titles()) == 1


def test_a_hub_that_is_out_of_order_is_an_error_of_one_line_after_the_retries(hub, original, tmp_path):
    hub.fail("commit", 503, times=None)
    command = f"{SETUP}raise SystemExit(main(['push', {str(original)!r}, '--repo-id', 'me/broken']))"
    done = start_python(command, tmp_path, HF_ENDPOINT=hub.address, HF_TOKEN=WRITER)
    assert (done.returncode, done.stdout) == (1, "")
    *tries, last = done.stderr.splitlines()
    out_of_order = "the Hub answered 503 (out of order, for Bearer <token>)"
    assert tries == [f"k2d: {out_of_order}; trying again in {wait} s" for wait in (1, 2, 4, 8)]
    assert last == (
        f"k2d: push to me/broken failed: {out_of_order} in each of 5 tries; nothing partial stays there, so run the "
        "same command again later"
    )
    assert hub.repository("me/broken").contents() == {}
    assert hub.kinds().count("commit") == 5


def test_a_commit_of_somebody_else_s_stays_below_ours(hub, push, original, files):
    push(original, "me/together")
    repository = hub.repository("me/together")
    repository.commit("remove", {"config.json": None})
    hub.before["commit"] = lambda: repository.commit("a picture", {"picture.png": b"mine"})
    assert push(original, "me/together").error is None
    assert repository.contents() == files | {"picture.png": b"mine"}
    assert repository.titles()[:2] == ["Student, by k2d_hf 0.1.0", "a picture"]


def test_what_somebody_else_has_changed_is_not_overwritten_unseen(hub, push, student):
    push(student, "me/contested")
    repository = hub.repository("me/contested")
    (student / "README.md").write_text("# Mine\n", encoding="utf-8")
    hub.before["commit"] = lambda: repository.commit("theirs", {"README.md": b"# Theirs\n"})
    assert push(student, "me/contested").error == (
        "K2DError: me/contested: somebody else has changed README.md in the meantime; see its history, then push "
        "again if yours is to replace it"
    )
    assert repository.contents()["README.md"] == b"# Theirs\n"


def test_what_the_hub_leaves_out_is_noticed(hub, push, original):
    hub.add(Repository("me/ignoring", private=True)).commit("ignore", {".gitignore": b"*.md\n"})
    assert (
        "the Hub did not take README.md; is there a .gitignore in the repository?"
        in push(original, "me/ignoring").error
    )


def test_a_public_repository_takes_no_private_student(hub, push, original, files):
    assert push(original, "me/public", private=False).result["private"] is False
    assert not hub.repository("me/public").private
    hub.forget()
    assert "me/public: it is public already, and private was asked for" in push(original, "me/public").error
    assert {request.method for request in hub.asked} <= {"GET", "HEAD"}


def test_a_private_repository_becomes_public_where_that_is_asked_for_and_says_so(hub, push, original, files):
    push(original, "me/opened")
    hub.forget()
    hub.fail("settings", 500)
    done = push(original, "me/opened", private=False)
    assert not hub.repository("me/opened").private
    assert (done.result["private"], done.result["opened"], done.result["uploaded"]) == (False, True, [])
    assert len(hub.repository("me/opened").titles()) == 1
    hub.forget()
    assert push(original, "me/opened", private=False).result["opened"] is False
    assert "settings" not in hub.kinds()


def test_a_repository_is_opened_last(hub, push, student):
    push(student, "me/late")
    (student / "README.md").write_text("# Another\n", encoding="utf-8")
    seen = []
    hub.before["commit"] = lambda: seen.append(hub.repository("me/late").private)
    push(student, "me/late", private=False)
    assert seen == [True]
    assert not hub.repository("me/late").private


@pytest.fixture(scope="module")
def carded(original, tmp_path_factory):
    """A student with a card as a training writes it, which knows no repository."""
    folder = shutil.copytree(original, tmp_path_factory.mktemp("carded") / "student")
    render_card(facts()).save(folder / "README.md")
    return folder


def test_the_card_goes_up_with_the_name_of_its_repository(hub, push, carded):
    local = (carded / "README.md").read_text(encoding="utf-8")
    push(carded, "me/named")
    held = hub.repository("me/named").contents()["README.md"].decode()
    assert 'model="."' in local
    assert held == render_card(facts(model_id="me/named")).content
    assert (carded / "README.md").read_text(encoding="utf-8") == local
    assert push(carded, "me/named").result["uploaded"] == []
    push(carded, "me/named", revision="v2")
    branch = hub.repository("me/named").contents("v2")["README.md"].decode()
    assert branch == render_card(facts(model_id="me/named", revision="v2")).content


def test_the_card_shows_faster_whisper_for_as_long_as_its_folder_is_there(hub, push, carded, tmp_path):
    push(carded, "me/both")
    done = push(carded, "me/both", ctranslate2=True).result
    first = hub.repository("me/both").contents()["README.md"].decode()
    assert {"README.md", "ctranslate2/model.bin"} <= set(done["uploaded"])
    assert 'snapshot_download("me/both", allow_patterns="ctranslate2/*")' in first
    assert push(carded, "me/both").result["uploaded"] == []  # the folder stays, and so does its section of the card
    other = shutil.copytree(carded, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.decoder.layer_norm.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    push(other, "me/both")
    held = hub.repository("me/both").contents()
    assert not any(path.startswith("ctranslate2/") for path in held)
    assert held["README.md"].decode() == render_card(facts(model_id="me/both")).content


def test_the_student_for_whisper_cpp_goes_up_with_its_section_of_the_card(hub, push, carded, tmp_path):
    done = push(carded, "me/cpp", ggml=True, ctranslate2=True, revision="v2")
    assert done.error is None
    held = hub.repository("me/cpp").contents("v2")
    assert {"ggml/ggml-model.bin", "ctranslate2/model.bin"} <= set(done.result["uploaded"])
    assert held["ggml/ggml-model.bin"][:4] == struct.pack("<i", 0x67676D6C)
    card = held["README.md"].decode()
    assert card.index("### faster-whisper") < card.index("### whisper.cpp") < card.index("## How it was made")
    assert 'file = hf_hub_download("me/cpp", "ggml/ggml-model.bin", revision="v2")' in card
    assert push(carded, "me/cpp", revision="v2").result["uploaded"] == []  # the folder stays, and so does its section
    other = shutil.copytree(carded, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.decoder.layer_norm.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    again = push(other, "me/cpp", revision="v2", ggml=True).result
    assert again["deleted"] == [path for path in sorted(held) if path.startswith("ctranslate2/")]
    now = hub.repository("me/cpp").contents("v2")
    assert now["ggml/ggml-model.bin"] != held["ggml/ggml-model.bin"]


def test_a_student_that_whisper_cpp_cannot_hold_is_one_line_and_nothing_goes_up(hub, push, student):
    config = json.loads((student / "config.json").read_text(encoding="utf-8"))
    (student / "config.json").write_text(json.dumps(config | {"scale_embedding": True}), encoding="utf-8")
    error = push(student, "me/odd", ggml=True).error
    assert error.endswith("scale_embedding is True; whisper.cpp reads models with False only")
    assert not any(request.kind == "commit" for request in hub.asked)


def test_a_token_in_a_card_of_ours_is_found_where_the_user_has_it(push, carded, tmp_path):
    folder = shutil.copytree(carded, tmp_path / "student")
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(WRITER)
    assert f"{folder / 'README.md'}: holds your access token" in push(folder, "me/token").error


@pytest.mark.parametrize(("name", "token"), [("lab/student", WRITER), ("me/fine", FINE_WRITER)])
def test_a_member_of_an_organisation_and_a_token_for_this_alone_may_write(hub, push, original, files, name, token):
    assert push(original, name, token=token).error is None
    assert hub.repository(name).contents() == files


@pytest.mark.parametrize(
    ("repo_id", "token", "line"),
    [
        ("me/x", None, "push to me/x: no token; run `hf auth login`, or set HF_TOKEN to one that may write"),
        ("me/x", READER, "push to me/x: the token of me may only read; make one that may write at"),
        ("me/x", FINE_READER, "push to me/x: the token of me may only read; make one that may write at"),
        ("me/x", "hf_madeUp", "push to me/x: the Hub does not know the token; get one that may write from"),
        ("you/x", WRITER, "push to you/x: the token does not write for you, but for me, lab"),
        ("school/x", WRITER, "push to school/x: the token does not write for school, but for me, lab"),
        ("x", WRITER, "push: 'x' is no name of a repository; write USER/NAME"),
        ("me/x/y", WRITER, "push: 'me/x/y' is no name of a repository"),
        ("me/../x", WRITER, "push: 'me/../x' is no name of a repository"),
        ("me/x y", WRITER, "push: 'me/x y' is no name of a repository"),
        ("me/", WRITER, "push: 'me/' is no name of a repository"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_any_work(hub, push, original, repo_id, token, line):
    done = push(original, repo_id, token=token)
    assert done.error.startswith(f"K2DError: {line}")
    assert "\n" not in done.error
    assert set(hub.kinds()) <= {"whoami"}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        ({"config.json": None}, "not a complete checkpoint, no config.json; give what k2d distil or k2d run wrote"),
        ({"generation_config.json": None}, "not a complete checkpoint, no generation_config.json"),
        ({"tokenizer.json": None, "vocab.json": None}, "not a complete checkpoint, no tokenizer.json"),
        ({"preprocessor_config.json": None}, "not a complete checkpoint, no preprocessor_config.json"),
        ({"model.safetensors": None}, "not a complete checkpoint, no weights as safetensors"),
        ({"model.safetensors": b"cut"}, "not a complete checkpoint, model.safetensors is damaged"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'}, "not a complete checkpoint, no model-00001-of-00002.safetensors"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../model.safetensors"}}'}, "not a complete checkpoint, model.safetensors.index.json names a file outside it"),
        ({"config.json": b'{"model_type": "bert"}'}, "a bert model, not Whisper"),
        ({"README.md": f"my token is {WRITER}".encode()}, "README.md: holds your access token; take it out"),
    ],
)  # fmt: skip
def test_what_is_not_a_student_is_refused_before_any_work(hub, push, student, damage, line):
    for name, content in damage.items():
        (student / name).unlink(missing_ok=True)
        if content is not None:
            (student / name).write_bytes(content)
    error = push(student, "me/damaged").error
    assert line in error
    assert "\n" not in error
    assert WRITER not in error
    assert ("model", "me/damaged") not in hub.repositories
    assert {request.method for request in hub.asked} <= {"GET", "HEAD"}


def test_the_command_line_says_what_it_did(hub, student, files, tmp_path):
    command = f"from k2d_hf.cli import main\nraise SystemExit(main(['push', {str(student)!r}, '--repo-id', 'me/line', '--public']))"
    done = [start_python(command, tmp_path, HF_ENDPOINT=hub.address, HF_TOKEN=WRITER) for _ in range(2)]
    commit, url = hub.repository("me/line").log()[0].sha[:7], f"{hub.address}/me/line"
    assert [one.stderr for one in done] == ["", ""]
    assert done[0].stdout == f"push      {len(files)} of {len(files)} files to {url} (public, commit {commit})\n"
    assert done[1].stdout == f"push      {url} (public) is up to date\n"
    hub.repository("me/line").private = True
    opened = start_python(command, tmp_path, HF_ENDPOINT=hub.address, HF_TOKEN=WRITER)
    assert opened.stdout == f"push      {url} (public, which it was not before) is up to date\n"


def test_the_token_is_nowhere(hub, python):
    """The last test of the module: all that was printed, logged and stored before."""
    assert len(python.answers) > 30
    assert WRITER not in repr(python.answers) + python.log.read_text(encoding="utf-8")
    held = [content for repository in hub.repositories.values() for content in repository.contents().values()]
    assert not any(token.encode() in content for content in held for token in (WRITER, READER))
