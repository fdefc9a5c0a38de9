"""Adapters as models: what is saved is what was trained, merged once, and refused in one line where it does not fit."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf import load_recipe
from k2d_hf.distillation.models import with_adapters
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper, resolve_checkpoint
from k2d_hf.models.adapters import merged_folder, save_adapter
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.inspect import inspect_model
from k2d_hf.models.parts import keep_neurons
from k2d_hf.models.sources import merged_checkpoint
from k2d_hf.models.student import create_student
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.publishing.card_names import has_id, public_name
from k2d_hf.publishing.student_files import student_files

LAYERS = {"encoder_layers": [1], "decoder_layers": [0, 2, 3]}
NARROW = {**LAYERS, "encoder_neurons": [[1, 2, 3, 62]]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def trained(teacher, *, freeze_encoder=False, layers=LAYERS, **settings):
    """A student with adapters, all of whose matrices have been trained to something."""
    student = create_student(teacher, layers["decoder_layers"], layers["encoder_layers"], language="zh")
    if "encoder_neurons" in layers:
        student = keep_neurons(student, layers["encoder_neurons"])
    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj", "fc1"], **settings})
    model = with_adapters(student, config, freeze_encoder=freeze_encoder).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.requires_grad and "magnitude" not in name:
                weights.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def student(tiny_whisper_dir):
    return trained(WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir))


@pytest.fixture(scope="module")
def saved(student, tiny_whisper_dir, tmp_path_factory):
    """Read it, never change it."""
    folder = tmp_path_factory.mktemp("saved") / "auxiliary"
    return save_adapter(student, folder, sources=["no/where", str(tiny_whisper_dir)], **LAYERS)


@pytest.fixture
def folder(saved, tmp_path):
    """An adapter that a test may break."""
    return shutil.copytree(saved, tmp_path / "auxiliary")


@torch.no_grad()
def logits(model):
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    return model.eval()(input_features=features, decoder_input_ids=torch.tensor([[50258, 50260, 50359, 100]])).logits


@pytest.mark.parametrize(
    ("settings", "dtype", "tolerance"),
    [
        ({}, "float16", 0.02),
        ({}, "bfloat16", 0.15),
        ({"freeze_encoder": True, "use_rslora": True, "init_lora_weights": "gaussian"}, "float32", 1e-4),
        ({"use_dora": True, "rank_pattern": {"fc1": 3}, "alpha_pattern": {"q_proj": 5}}, "float32", 1e-4),
        ({"modules_to_save": ["layer_norm"], "target_modules": r".*decoder.*\.fc2"}, "float32", 1e-4),
        ({"layers": {"encoder_layers": None, "decoder_layers": 2}}, "float32", 1e-4),
        ({"layers": NARROW, "target_modules": ["fc1", "fc2"]}, "float32", 1e-4),
    ],
)
def test_what_is_loaded_is_what_was_trained(tiny_whisper, tiny_whisper_dir, tmp_path, settings, dtype, tolerance):
    model = trained(tiny_whisper, **settings)
    layers = settings.get("layers", LAYERS)
    save_adapter(model, tmp_path / "a", sources=str(tiny_whisper_dir), dtype=dtype, **layers)
    loaded = load_whisper(tmp_path / "a")
    assert {str(tensor.dtype) for tensor in load_file(tmp_path / "a" / "adapter_model.safetensors").values()} == {
        f"torch.{dtype}"
    }
    assert {weights.dtype for weights in loaded.parameters()} == {torch.float32}
    expected, before = logits(model), logits(model.unload())
    assert (logits(loaded) - expected).abs().max() < tolerance * expected.std()
    assert (before - expected).abs().max() > 0.5 * expected.std()


def test_neurons_have_a_line_a_layer_and_are_seen_without_merging(tiny_whisper, tiny_whisper_dir, tmp_path):
    save_adapter(trained(tiny_whisper, layers=NARROW), tmp_path / "a", sources=str(tiny_whisper_dir), **NARROW)
    assert "    [1, 2, 3, 62]\n" in (tmp_path / "a" / "base.json").read_text()
    found = inspect_model(str(tmp_path / "a"))
    assert (found.shape.encoder_ffn_dim, found.checkpoint) == (4, None)
    assert found.shape.parameters == load_whisper(tmp_path / "a").num_parameters()


def test_a_merged_checkpoint_is_complete(saved, tiny_whisper_dir):
    found = resolve_checkpoint(saved)
    assert (found.name, found.origin) == (str(saved), "adapter")
    assert "model.safetensors" in student_files(found.path)
    settings = load_whisper(found.path).generation_config
    assert (settings.language, settings.task) == ("zh", "transcribe")
    assert settings.alignment_heads == [[0, 1], [1, 0], [2, 1]]
    processor, original = (WhisperProcessor.from_pretrained(path) for path in (found.path, tiny_whisper_dir))
    assert processor.tokenizer.get_vocab() == original.tokenizer.get_vocab()


def test_without_a_generation_config_of_its_own_it_is_the_bases_with_fewer_layers(folder):
    (folder / "generation_config.json").unlink()
    settings = load_whisper(folder).generation_config
    assert (getattr(settings, "language", None), settings.task) == (None, "transcribe")
    assert settings.alignment_heads == [[0, 1], [1, 0], [2, 1]]


def test_an_adapter_is_small_and_its_files_are_the_same_each_time(student, saved, tiny_whisper_dir, tmp_path):
    again = save_adapter(student, tmp_path / "again", sources=["no/where", str(tiny_whisper_dir)], **LAYERS)
    files = sorted(path.name for path in saved.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "base.json", "generation_config.json"]
    assert all((saved / name).read_bytes() == (again / name).read_bytes() for name in files)
    assert json.loads((saved / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def scale(folder, factor):
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: factor * tensor for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


def test_it_is_merged_once_until_it_changes(folder, tmp_path):
    first = merged_checkpoint(folder)
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert merged_checkpoint(shutil.copytree(folder, tmp_path / "elsewhere")) == first
    assert resolve_checkpoint(["no/where", folder]).path == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    scale(folder, 2)
    assert checkpoint_fingerprint(merged_checkpoint(folder)) != checkpoint_fingerprint(first)


@pytest.mark.parametrize(
    ("change", "another"),
    [
        (lambda folder: scale(folder, 2), True),
        (lambda folder: rewrite(folder / "adapter_config.json", lora_alpha=1), True),
        (lambda folder: rewrite(folder / "base.json", decoder_layers=[0, 1, 3]), True),
        (lambda folder: rewrite(folder / "generation_config.json", max_length=100), True),
        (lambda folder: (folder / "generation_config.json").unlink(), True),
        (lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"), True),
        (lambda folder: rewrite(folder / "its-base" / "generation_config.json", max_length=99), True),
        (lambda folder: (folder / "notes.txt").write_text("none of its files"), False),
    ],
)
def test_a_change_of_adapter_or_base_makes_another(folder, tiny_whisper_dir, change, another):
    base = shutil.copytree(tiny_whisper_dir, folder / "its-base")
    before = merged_folder(folder, base)
    change(folder)
    assert (merged_folder(folder, base) != before) is another


def test_a_card_travels_with_the_weights_and_the_name_is_no_id(folder):
    rewrite(folder / "base.json", name="openai/not-theirs")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    found = resolve_checkpoint(folder)
    assert (found.name, public_name(found), has_id(found)) == ("openai/not-theirs", "not-theirs", False)
    assert (found.path / "README.md").read_bytes() == (folder / "README.md").read_bytes()


# What is refused


def pickle_instead(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def drop_one(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "adapter_model.safetensors")


def base(**changes):
    return lambda folder: rewrite(folder / "base.json", **changes)


def adapter(**changes):
    return lambda folder: rewrite(folder / "adapter_config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "base.json").write_text("{"), "base.json: not readable as JSON"),
        (lambda folder: (folder / "base.json").write_text("[" * 100000), "base.json: not readable as JSON"),
        (lambda folder: (folder / "base.json").write_text("[]"), "base.json: [] is no mapping of settings"),
        (lambda folder: (folder / "base.json").write_text("{}"), "base.json: sources: missing; give the base weights"),
        (base(decoder_layer=2), "base.json: decoder_layer: no such setting; did you mean decoder_layers?"),
        (base(sources=[]), "base.json: sources: none; give the base weights"),
        (base(sources=3), "base.json: sources: 3 is not text or a list of text"),
        (base(sources=["a/b", "./nope"]), "base.json: sources: none of the model's 2 sources answers: a/b (not a"),
        (base(sources=["~nobody-of-this-name/x"]), "no such folder, and not a Hub id"),
        (base(sources=["x" * 300]), "no such folder, and not a Hub id"),
        (base(sources=["./"]), "is an adapter too; give the weights that it belongs to"),
        (base(name="two\nlines"), "base.json: name: 'two\\nlines' is no name of one line; give a shorter one"),
        (base(encoder_layers=[2]), "base.json: encoder_layers: no layer 2; the base has 2, 0 to 1, or -1 for the last"),
        (base(encoder_neurons=[[64]]), "base.json: encoder_neurons: no neuron 64 (list 0); a layer of the base has 64"),
        (base(encoder_neurons=[1]), "base.json: encoder_neurons: [1] is not a list of lists of whole numbers or null"),
        (base(encoder_neurons=[[1]]), "has shape [64, 2], and [1, 2] in the base"),
        (base(decoder_layers=5), "base.json: decoder_layers: 5 layers: the base has 4, so choose 1 to 4"),
        (base(decoder_layers="all"), "base.json: decoder_layers: 'all' is not a whole number or a list of whole"),
        (base(decoder_layers=[0, 3]), "adapter_model.safetensors: does not fit the base with the layers of base.json"),
        (base(decoder_layers=None), "has shape none, and [2, 32] in the base; correct base.json, or save the adapter"),
        (adapter(r=3), "has shape [2, 32], and [3, 32] in the base"),
        (adapter(r="three"), "adapter_config.json: "),
        (adapter(target_modules=["nowhere"]), "adapter_config.json: does not fit the base (Target modules"),
        (adapter(peft_type="XLORA"), "adapter_config.json: peft_type 'XLORA'; give an adapter of LoRA"),
        (adapter(bias="all"), "adapter_config.json: bias is 'all', which cannot be merged; train without it"),
        (adapter(layer_replication=[[0, 9]]), "layer_replication is [[0, 9]], which cannot be merged"),
        (adapter(init_lora_weights="pissa"), "init_lora_weights 'pissa' changes the base too; train with another"),
        (adapter(of_next_year=True), "of_next_year is True, which cannot be merged"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "base.json without adapter_config.json"),
        (lambda folder: (folder / "base.json").unlink(), "merge them, or name their base in base.json"),
        (
            lambda folder: (folder / "generation_config.json").write_text("no"),
            "generation_config.json: not readable as",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 50),
            "adapter_model.safetensors: dam",
        ),
        (pickle_instead, "base.json without adapter_model.safetensors; save the adapter again, with safetensors"),
        (drop_one, "has shape none, and ["),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(folder, tmp_path, damage, message):
    damage(folder)
    with pytest.raises(K2DError) as error:
        resolve_checkpoint(folder)
    assert message in str(error.value)
    assert str(error.value).startswith(f"model {folder}: ")
    assert str(error.value).count("give the path of a local checkpoint folder") == 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 800
    assert not [path for path in (tmp_path / "cache" / "checkpoints").glob("*") if path.is_dir()]


def test_a_base_named_by_the_adapter_is_not_fetched(folder):
    rewrite(folder / "adapter_config.json", base_model_name_or_path="some/where", auto_mapping={"parent_library": "x"})
    assert resolve_checkpoint(folder).origin == "adapter"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8': not one of float32, float16, bfloat16"),
        ({"decoder_layers": 2}, "decoder_layers: 2, but the trained student has 3; give those it was created with"),
        ({"encoder_layers": [0, 1]}, r"encoder_layers: \[0, 1\], but the trained student has 1"),
        (
            {"encoder_neurons": [[1, 2]]},
            r"encoder_neurons: lists of \[2\], but the trained student has 64 in each of 1",
        ),
        ({"encoder_neurons": [[*range(64)]] * 2}, r"encoder_neurons: lists of \[64, 64\], but the trained student has"),
        ({"sources": []}, "sources: none"),
    ],
)
def test_what_cannot_be_saved_is_not(student, tmp_path, changes, message):
    with pytest.raises(K2DError, match=message):
        save_adapter(student, tmp_path / "a", **{"sources": "a/b", **LAYERS, **changes})
    assert not (tmp_path / "a").exists()


def test_a_model_without_adapter_cannot_be_saved_as_one(tiny_whisper, tmp_path):
    with pytest.raises(K2DError, match="WhisperForConditionalGeneration has no adapter"):
        save_adapter(tiny_whisper, tmp_path / "a", sources="a/b", **LAYERS)


# In plans and recipes


def test_it_is_looked_at_without_being_merged(folder, tmp_path):
    found = inspect_model(["someone/else", str(folder)])
    assert found.where.startswith("adapter of ")
    assert found.where.endswith(", folder; to be merged")
    assert (found.shape.encoder_layers, found.shape.decoder_layers, found.checkpoint) == (1, 3, None)
    assert not (tmp_path / "cache" / "checkpoints").exists()
    merged = resolve_checkpoint(folder)
    again = inspect_model(str(folder))
    assert (again.checkpoint, again.shape) == (merged, found.shape)
    assert again.shape.parameters == load_whisper(folder).num_parameters()


def test_one_whose_base_cannot_be_had_now_is_planned_by_its_name(folder):
    rewrite(folder / "base.json", sources=["openai/whisper-base"], encoder_layers=[0, 5], decoder_layers=2)
    found = inspect_model(str(folder))
    assert (found.available, found.shape.encoder_layers, found.shape.decoder_layers) == (False, 2, 2)
    rewrite(folder / "base.json", decoder_layers=9)
    with pytest.raises(K2DError, match="decoder_layers: 9 layers: the base has 6"):
        inspect_model(str(folder))


@pytest.mark.parametrize("written", ["./auxiliary", "auxiliary"])
def test_a_recipe_finds_the_one_beside_it(folder, tiny_whisper_dir, tmp_path, monkeypatch, written):
    (tmp_path / "speech").mkdir()
    text = f"name: x\nrecordings: speech\nteacher: {tiny_whisper_dir}\nauxiliary: [openai/whisper-tiny, {written}]\n"
    (tmp_path / "r.yaml").write_text(text)
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "r.yaml", elsewhere=True)
    assert recipe.auxiliary == ["openai/whisper-tiny", str(folder)]
    assert plan_run(recipe).auxiliary.shape.decoder_layers == 3
    assert resolve_checkpoint(recipe.auxiliary).name == str(folder)
