"""Adapters as models: base weights, a selection of their parts, and a LoRA adapter of a few megabytes, merged once.

So an auxiliary travels in a repository; where it is used, it is a checkpoint in the cache like any other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.cache import cache_root
from k2d_hf.files.folders import write_folder
from k2d_hf.files.json_files import read_json
from k2d_hf.files.resuming import key_of
from k2d_hf.files.settings import read_settings, setting
from k2d_hf.formatting import error_message, quote, short_name
from k2d_hf.models.checkpoint import ADAPTER, ADAPTER_BASE, DTYPES, Checkpoint, load_checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint, file_sha256
from k2d_hf.models.language_mix import NAME, mix_of
from k2d_hf.models.parts import copy_layers, keep_neurons, layer_indices, neuron_indices, set_language
from k2d_hf.models.processors import load_processor
from k2d_hf.models.shapes import WhisperShape, shape_of_config
from k2d_hf.models.student_folder import save_student

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import WhisperForConditionalGeneration

WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER, ADAPTER_BASE, WEIGHTS)
_GENERATION = "generation_config.json"
_CARD = "README.md"
_MERGE_VERSION = 2  # raise it when the same adapter and base make another checkpoint

# Settings of LoRA for the places and weights of its matrices. With the others a model might be more than
# base and matrices (biases, layers twice, other models fetched), so they must have their defaults.
_OF_MATRICES = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save"),
)
_OF_TRAINING = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "init_lora_weights"),
)
_KEEP_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")  # initialisations that leave the base's weights alone


@dataclass(frozen=True)
class AdapterBase:
    """The base of an adapter, as in `base.json` beside it."""

    sources: str | list[str] = setting(help="the base weights, one source or several to try in order")
    encoder_layers: int | list[int] | None = setting(None, "How many of its encoder layers, or which; null is all.")
    decoder_layers: int | list[int] | None = setting(None, "Likewise of the decoder.")
    encoder_neurons: list[list[int]] | None = setting(None, "Neurons of each of these encoder layers; null is all.")
    name: str | None = setting(None, "What to call the model; null is the folder.")


def save_adapter(
    trained: Any,
    folder: str | Path,
    *,
    sources: str | Sequence[str],
    encoder_layers: int | Sequence[int] | None,
    decoder_layers: int | Sequence[int] | None,
    encoder_neurons: Sequence[Sequence[int]] | None = None,
    name: str | None = None,
    dtype: str = "float16",
) -> Path:
    """Write the adapter of a trained student as a folder that serves wherever a model is given, and return the folder.

    Args:
        trained: the peft model that `K2DTrainer` trained (`trainer.model`), on a student of `create_student`.
        folder: to write; it must be empty or not exist.
        sources: of the weights that the student was made from, as `resolve_checkpoint` takes them; a folder that begins
            with `./` or `../` is seen from `folder`.
        encoder_layers: those that the student has, as given to `create_student`; None is all.
        decoder_layers: likewise.
        encoder_neurons: those, as given to `keep_neurons`; None is all.
        name: what to call the model; None is its folder.
        dtype: of the stored matrices: float32, float16 or bfloat16.

    Raises:
        K2DError: if the model has no LoRA adapter, its settings are more than matrices added to the base's, layers or
            neurons are not as many as the student's, its language token began as a mix, or the folder holds something.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if dtype not in DTYPES:
        raise K2DError(f"dtype {quote(dtype)}: not one of {', '.join(DTYPES)}")
    if not hasattr(trained, "peft_config"):
        raise K2DError(f"a {type(trained).__name__} has no adapter; give the model that K2DTrainer trained with peft")
    adapter = trained.active_adapter
    config = {key: _plain(value) for key, value in trained.peft_config[adapter].to_dict().items()}
    _check_settings(config, where="the adapter")
    config |= {"base_model_name_or_path": None, "inference_mode": True, "init_lora_weights": True}
    student = trained.get_base_model()
    if mix_of(vars(student.config)) is not None:
        raise K2DError(f"{NAME}: an adapter does not hold the mixed embedding; save the merged student instead")
    base = {
        "sources": [sources] if isinstance(sources, str) else [str(source) for source in sources],
        "encoder_layers": _plain(encoder_layers),
        "decoder_layers": _plain(decoder_layers),
        **({} if encoder_neurons is None else {"encoder_neurons": [list(kept) for kept in encoder_neurons]}),
        **({} if name is None else {"name": name}),
    }
    for key in ("encoder_layers", "decoder_layers"):
        count = base[key] if isinstance(base[key], (int, type(None))) else len(base[key])
        has = getattr(student.config, key)
        if count is not None and count != has:
            raise K2DError(f"{key}: {base[key]}, but the trained student has {has}; give those it was created with")
    if encoder_neurons is not None:
        counts, layers = [len(kept) for kept in encoder_neurons], student.config.encoder_layers
        if counts != [student.config.encoder_ffn_dim] * layers:
            has = f"the trained student has {student.config.encoder_ffn_dim} in each of {layers} layers"
            raise K2DError(f"encoder_neurons: lists of {counts}, but {has}; give those it was created with")
    # Without the embeddings, whose sizes peft would otherwise compare with those of a model on the Hub.
    weights = get_peft_model_state_dict(trained, adapter_name=adapter, save_embedding_layers=False)
    stored = {key: tensor.detach().to("cpu", getattr(torch, dtype)).contiguous() for key, tensor in weights.items()}
    if large := [key for key, tensor in stored.items() if not torch.isfinite(tensor).all()]:
        raise K2DError(f"{large[0]}: holds numbers that are not finite in {dtype}; choose bfloat16, or train again")

    def write(target: Path) -> None:
        for file, values in ((ADAPTER, config), (ADAPTER_BASE, base)):
            (target / file).write_text(_json(values), encoding="utf-8")
        save_file(stored, target / WEIGHTS, metadata={"format": "pt"})
        student.generation_config.save_pretrained(target)
        read_adapter(target)

    return write_folder(Path(folder), write)


def read_adapter(folder: Path) -> AdapterBase:
    """The settings in `base.json`, with sources as seen from here; K2DError if a file is missing or one is wrong."""
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise K2DError(f"{folder}: {ADAPTER_BASE} without {name}; save the adapter again, with safetensors")
    path = folder / ADAPTER_BASE
    return read_base(read_json(path), path)


def read_base(values: Mapping[str, Any], path: Path) -> AdapterBase:
    """What a `base.json` at `path` holds, with sources as seen from here; K2DError for what is wrong with it."""
    folder = path.parent
    adapter = read_settings(AdapterBase, values, where=str(path))
    if adapter.name is not None and short_name(adapter.name) != adapter.name:
        raise K2DError(f"{path}: name: {quote(adapter.name)} is no name of one line; give a shorter one")
    sources = [adapter.sources] if isinstance(adapter.sources, str) else adapter.sources
    if not sources:
        raise K2DError(f"{path}: sources: none; give the base weights, such as openai/whisper-base")
    sources = [str(folder / source) if source.startswith(("./", "../")) else source for source in sources]
    for source in sources:  # a circle of adapters would never end
        if os.path.isfile(os.path.join(os.path.expanduser(source), ADAPTER_BASE)):
            raise K2DError(f"{path}: sources: {source} is an adapter too; give the weights that it belongs to")
    return replace(adapter, sources=sources)


def merged_folder(folder: Path, base: Path) -> Path:
    """Where the checkpoint of an adapter's folder on this base is kept, whether it is there or not."""
    names = (*ADAPTER_FILES, _GENERATION, _CARD)
    files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    return cache_root() / "checkpoints" / f"adapter-{key_of(checkpoint_fingerprint(base), files)}-{_MERGE_VERSION}"


def selected_parts(
    folder: Path, adapter: AdapterBase, base: WhisperShape
) -> tuple[list[int], list[int], list[list[int]] | None]:
    """Indices of the encoder's and decoder's layers, and of encoder neurons (None: all), that are kept of a base.

    K2DError for a layer or a neuron that the base does not have.
    """
    chosen = []
    try:
        for name in ("encoder_layers", "decoder_layers"):
            layers, total = getattr(adapter, name), getattr(base, name)
            chosen.append(layer_indices(layers, total, what=name, whose="base"))
        neurons = adapter.encoder_neurons
        if neurons is not None:
            neurons = neuron_indices(neurons, len(chosen[0]), base.encoder_neurons, whose="base")
    except K2DError as error:
        raise K2DError(f"{folder / ADAPTER_BASE}: {error}") from None
    return chosen[0], chosen[1], neurons


def fill_merged(folder: Path, adapter: AdapterBase, base: Checkpoint, target: Path) -> None:
    """Fill `target` with the transformers checkpoint of an adapter's folder on its base; K2DError if they differ."""
    from transformers import GenerationConfig

    config = _lora_config(folder / ADAPTER)
    original = load_checkpoint(base)
    shape = shape_of_config(original.config.to_dict())
    assert shape is not None
    encoder, decoder, neurons = selected_parts(folder, adapter, shape)
    student = copy_layers(original, decoder, encoder)
    del original  # two in memory at a time
    set_language(student, None, "transcribe")
    if neurons is not None:
        keep_neurons(student, neurons)
    merged = _with_adapter(student, config, folder)
    if (path := folder / _GENERATION).is_file():
        try:
            merged.generation_config = GenerationConfig.from_dict(read_json(path))
        except (ValueError, TypeError) as error:
            reason = error_message(error)
            raise K2DError(f"{path}: not a generation config ({reason}); save the adapter again") from None
    merged.config.name_or_path = base.name
    save_student(merged, load_processor(base.path), target)
    if (folder / _CARD).is_file():  # its licence is that of what is made with it
        shutil.copyfile(folder / _CARD, target / _CARD)


def _with_adapter(
    student: WhisperForConditionalGeneration, config: LoraConfig, folder: Path
) -> WhisperForConditionalGeneration:
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    fix = f"correct {ADAPTER_BASE}, or save the adapter again"
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise K2DError(f"{path}: damaged ({error_message(error)}); download or copy it again") from None
    try:
        model: Any = get_peft_model(student, config)
        places = get_peft_model_state_dict(model, save_embedding_layers=False)
    except Exception as error:  # whatever peft makes of settings that fit no Whisper
        raise K2DError(f"{folder / ADAPTER}: does not fit the base ({error_message(error)}); {fix}") from None
    shapes, wanted = ({key: list(one.shape) for key, one in part.items()} for part in (weights, places))
    for key in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(key) != wanted.get(key):
            found = f"has shape {shapes.get(key, 'none')}, and {wanted.get(key, 'none')} in the base"
            wrong = f"{short_name(key, 200)} {found}"
            raise K2DError(f"{path}: does not fit the base with the layers of {ADAPTER_BASE}: {wrong}; {fix}")
    set_peft_model_state_dict(model, weights)
    return model.merge_and_unload()


def _lora_config(path: Path) -> LoraConfig:
    """The settings for the places of an adapter's matrices; none that would fetch or run anything."""
    from peft import LoraConfig

    values = read_json(path)
    _check_settings(values, where=str(path))
    try:
        return LoraConfig(**{name: values[name] for name in _OF_MATRICES if name in values})
    except Exception as error:  # of values that no LoRA can have
        raise K2DError(f"{path}: not settings of LoRA ({error_message(error)}); save the adapter again") from None


def _check_settings(values: Mapping[str, Any], *, where: str) -> None:
    """Raise K2DError for an adapter that is more than LoRA's matrices."""
    from peft import LoraConfig

    if values.get("peft_type") != "LORA":
        raise K2DError(f"{where}: peft_type {quote(values.get('peft_type'))}; give an adapter of LoRA")
    if values.get("init_lora_weights", True) not in _KEEP_THE_BASE:
        begin = quote(values["init_lora_weights"])
        raise K2DError(f"{where}: init_lora_weights {begin} changes the base too; train with another")
    defaults = vars(LoraConfig())
    for name, value in values.items():
        if name not in (*_OF_MATRICES, *_OF_TRAINING) and value and value != defaults.get(name):
            raise K2DError(f"{where}: {short_name(name)} is {quote(value)}, which cannot be merged; train without it")


def _plain(value: Any) -> Any:
    """As JSON has it, and sets in order, so that the same adapter makes the same file."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return list(value) if isinstance(value, (range, tuple)) else getattr(value, "value", value)


def _json(values: Mapping[str, Any]) -> str:
    """A setting a line, and a line for each list of a list: those of neurons have a thousand numbers."""
    lines = []
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")
        if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
            text = "[\n    " + ",\n    ".join(map(json.dumps, value)) + "\n  ]"
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
