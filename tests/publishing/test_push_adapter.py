"""An adapter on the Hub, over HTTP: as it is, with a card that says how to load it, or as the whole model it makes."""

import inspect
import json
import shutil

import pytest
import torch
from fresh_process import PythonProcess
from hub_server import WRITER, LocalHub, serving
from peft import LoraConfig
from student_layout import check_layout
from transformers import WhisperForConditionalGeneration

from k2d_hf import create_student
from k2d_hf.distillation.models import with_adapters
from k2d_hf.models.adapters import save_adapter
from k2d_hf.models.student_folder import save_student
from k2d_hf.publishing.card_rendering import render_card
from publishing.card_parts import facts

SETUP = """
import torch
from transformers import pipeline
from k2d_hf.models import load_whisper
from k2d_hf.publishing.hub import push_student
"""


def logits(model):
    """Of fifty tokens after some others, for noise."""
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[50258, 50260, 50359, 100]])
    with torch.no_grad():
        return model.eval()(input_features=features, decoder_input_ids=tokens).logits[0, -1, :50].tolist()


MINE = "---\nlicense: mit\nlibrary_name: peft\n---\n\n# Mine\n\nHow it was made.\n"


@pytest.fixture(scope="module")
def hub():
    """The Hub of this module, which has the base."""
    hub = LocalHub()
    with serving(hub):
        yield hub


@pytest.fixture(scope="module")
def python(hub, tmp_path_factory, base):
    """A process that talks to it."""
    home = tmp_path_factory.mktemp("home")
    with PythonProcess(home, HF_ENDPOINT=hub.address, K2D_CACHE=str(home / "k2d"), HF_TOKEN=WRITER) as python:
        assert python.run(SETUP + inspect.getsource(logits)).error is None
        assert python.run(f"push_student({str(base)!r}, 'me/base')").error is None
        yield python


@pytest.fixture(scope="module")
def base(tiny_whisper_dir, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_student(WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir), processor, folder)
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """A student of two layers with DoRA, all of whose matrices have been trained to something."""
    student = create_student(WhisperForConditionalGeneration.from_pretrained(base), 2, language="zh")
    model = with_adapters(
        student, LoraConfig(r=2, target_modules=["q_proj", "fc1"], use_dora=True), freeze_encoder=True
    )
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                weights.normal_(0, 0.2)
    return model


@pytest.fixture
def save(trained, tmp_path):
    """Write the adapter; its base is that on the Hub, or another."""

    def save(source="me/base", card=None):
        layers = {"encoder_layers": None, "decoder_layers": 2}
        folder = save_adapter(trained, tmp_path / "adapter", sources=source, dtype="float32", **layers)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
        return folder

    return save


@pytest.fixture
def push(python):
    def push(folder, repo_id, **options):
        return python.run(f"result = vars(push_student({str(folder)!r}, {repo_id!r}, **{options!r}))")

    return push


@pytest.fixture(scope="module")
def expected(trained):
    """What the student with its adapter says, not merged."""
    return logits(trained)


def card_of(hub, repo_id):
    return hub.repository(repo_id).contents()["README.md"].decode()


def test_an_adapter_goes_up_as_it_is_and_its_card_loads_it(hub, push, python, save, expected):
    folder = save(card=MINE)
    done = push(folder, "me/adapter")
    assert done.error is None
    held = hub.repository("me/adapter").contents()
    assert held.keys() == {path.name for path in folder.iterdir()}
    assert held["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    card = card_of(hub, "me/adapter")
    assert card.startswith(MINE)
    code = card.partition("```python\n")[2].partition("```")[0]
    assert python.run(f"{code}\nresult = logits(model)").result == pytest.approx(expected, abs=1e-3)
    assert (folder / "README.md").read_text(encoding="utf-8") == MINE
    assert push(folder, "me/adapter").result["uploaded"] == []


def test_merged_it_is_a_whole_student_that_pipeline_loads_by_its_id(
    hub, push, python, save, expected, tmp_path, processor
):
    folder = save(card=MINE)
    assert push(folder, "me/merged", merge=True).error is None
    held = hub.repository("me/merged").contents()
    assert not any(name.startswith(("adapter_", "base")) for name in held)
    for name, content in held.items():
        (tmp_path / name).write_bytes(content)
    check_layout(tmp_path, processor)
    recognise = "asr = pipeline('automatic-speech-recognition', model='me/merged', device='cpu')"
    assert python.run(f"{recognise}\nresult = logits(asr.model)").result == pytest.approx(expected, abs=1e-3)
    card = card_of(hub, "me/merged")
    assert "library_name: transformers" in card
    assert "license: mit" in card
    assert "How it was made." in card
    assert 'model="me/merged"' in card
    assert "the adapter is merged with its base" in card
    assert push(folder, "me/merged", merge=True).result["uploaded"] == []


def test_neither_leaves_the_other_behind_where_it_would_be_loaded(hub, push, save):
    folder = save()
    push(folder, "me/turn", merge=True, ctranslate2=True)
    assert 'model="me/turn"' in card_of(hub, "me/turn")
    assert "WhisperModel" in card_of(hub, "me/turn")
    push(folder, "me/turn")
    held = hub.repository("me/turn").contents()
    adapter = {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    assert held.keys() == {*adapter, "generation_config.json", "README.md"}
    assert 'load_whisper("me/turn")' in card_of(hub, "me/turn")
    push(folder, "me/turn", merge=True)
    held = hub.repository("me/turn").contents()
    assert not adapter & held.keys()
    assert "model.safetensors" in held


@pytest.mark.parametrize(
    ("change", "options", "line"),
    [
        ({"sources": ["../base"]}, {}, "the base is a folder of this machine, not on the Hub; push the whole model (--merge"),
        ({"sources": ["/models/base"]}, {}, "/models/base: the base is a folder of this machine"),
        ({}, {"ggml": True}, "push: ggml is of whole weights, and "),
        ({"decoder_layers": [0, 9]}, {"merge": True}, "base.json: decoder_layers: no layer 9; the base has 4"),
        ({"sources": ["no/where"]}, {"merge": True}, "base.json: sources: model no/where"),
    ],
)  # fmt: skip
def test_what_cannot_be_pushed_is_one_line(hub, push, save, change, options, line):
    folder = save()
    base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    (folder / "base.json").write_text(json.dumps(base | change), encoding="utf-8")
    error = push(folder, "me/wrong", **options).error
    assert line in error
    assert "\n" not in error
    assert ("model", "me/wrong") not in hub.repositories


def test_an_adapter_of_a_trainer_goes_up_merged_with_the_student_beneath_it(hub, push, save, base, expected, python):
    """Its card says that the folder holds adapters; that of the whole model does not."""
    folder = save(source="../base")
    shutil.copytree(base, folder.parent / "base")
    render_card(facts(adapters_alone=True)).save(folder / "README.md")
    assert "holds adapters" in (folder / "README.md").read_text(encoding="utf-8")
    assert push(folder, "me/trainer", merge=True).error is None
    card = card_of(hub, "me/trainer")
    assert "holds adapters" not in card
    assert card.index('model="me/trainer"') < card.index("## How it was made")
    assert python.run("result = logits(load_whisper('me/trainer'))").result == pytest.approx(expected, abs=1e-3)


def test_an_adapter_on_a_branch_is_loaded_from_there_by_its_card(hub, push, python, save, expected):
    assert push(save(), "me/branch", revision="try").error is None
    card = hub.repository("me/branch").contents("try")["README.md"].decode()
    code = card.partition("```python\n")[2].partition("```")[0]
    assert 'load_whisper("me/branch@try")' in code
    assert python.run(f"{code}\nresult = logits(model)").result == pytest.approx(expected, abs=1e-3)


INSPECT = """
from k2d_hf.errors import K2DError
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.inspect import inspect_model
result = []
for of in (inspect_model, resolve_checkpoint, inspect_model):
    try:
        found = of({source!r})
        result.append([found.name, getattr(found, "where", None) or found.origin])
    except K2DError as error:
        result.append(str(error))
"""


def test_an_adapter_is_inspected_fetched_and_merged_by_its_id(hub, push, python, save):
    push(save(), "me/by-id")
    first, fetched, again = python.run(INSPECT.format(source="me/by-id")).result
    assert first[0] == fetched[0] == again[0] == "me/by-id"
    assert first[1].endswith("; to be fetched from the Hub and merged")
    assert first[1].startswith("adapter of me/base, ")
    assert fetched[1] == "adapter"
    assert again[1] == "adapter of me/base, merged"
    lost = """
from k2d_hf.models.sources import cached_snapshot, model_gap
cached = cached_snapshot("me/by-id", None)
(cached / "adapter_model.safetensors").unlink()
result = [model_gap(cached), resolve_checkpoint("me/by-id").origin, model_gap(cached)]
"""
    assert python.run(lost).result == ["no adapter_model.safetensors", "adapter", None]


def test_an_adapter_of_an_adapter_is_refused_and_no_circle_goes_round(hub, push, python, save):
    """Two that name each other, as strangers may push them."""
    folder = save(source="me/other")
    push(folder, "me/circle")
    base = folder / "base.json"
    base.write_text(base.read_text(encoding="utf-8").replace("me/other", "me/circle"), encoding="utf-8")
    push(folder, "me/other")
    planned, refused, again = python.run(INSPECT.format(source="me/circle")).result
    assert "none of me/other is here" in planned
    assert "base.json: sources: model me/other: an adapter too; give the weights that it belongs to" in refused
    assert "none of me/other is here" in again
