"""Parts of a model: which layers and neurons a student keeps, and the student that is made of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.languages import language_code

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperForConditionalGeneration


def spaced_layers(count: int, total: int, *, whose: str = "teacher") -> list[int]:
    """Indices of `count` of `total` layers, evenly spaced, the first and the last among them; one layer is the first.

    Raises:
        K2DError: if `count` is not between 1 and `total`.
    """
    if not 1 <= count <= total:
        raise K2DError(f"{count} layers: the {whose} has {total}, so choose 1 to {total}")
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def layer_indices(
    layers: int | Sequence[int], total: int, *, what: str = "decoder_layers", whose: str = "teacher"
) -> list[int]:
    """The layers to copy, as indices from 0.

    Args:
        layers: how many, evenly spaced, or which; negative indices count from the end.
        total: layers of the teacher.
        what: name of the setting, for errors.
        whose: the model that is copied from, likewise.

    Raises:
        K2DError: for no layer, an index that the teacher does not have, or the same layer twice.
    """
    if isinstance(layers, int):
        try:
            return spaced_layers(layers, total, whose=whose)
        except K2DError as error:
            raise K2DError(f"{what}: {error}") from None
    if not layers:
        raise K2DError(f"{what}: no layer to copy; the {whose} has {total}")
    outside = [index for index in layers if not -total <= index < total]
    if outside:
        raise K2DError(f"{what}: no layer {outside[0]}; the {whose} has {total}, 0 to {total - 1}, or -1 for the last")
    indices = [index % total for index in layers]
    if len(set(indices)) != len(indices):
        raise K2DError(f"{what}: the same layer twice in {list(layers)} (the {whose} has {total} layers)")
    return indices


def neuron_indices(
    neurons: Sequence[Sequence[int]], layers: int, total: int, *, what: str = "encoder_neurons", whose: str = "teacher"
) -> list[list[int]]:
    """The neurons of feed-forward networks to copy, as indices from 0, a list for each layer.

    Args:
        neurons: for each layer that is copied which of its neurons; the same number in each, as a config has one
            number of them (`encoder_ffn_dim`).
        layers: that are copied.
        total: neurons of a layer of the teacher.
        what: name of the setting, for errors.
        whose: the model that is copied from, likewise.

    Raises:
        K2DError: for another number of lists, lists of several lengths or of none, a neuron that the teacher does not
            have, or the same one twice in a layer.
    """
    if len(neurons) != layers:
        raise K2DError(f"{what}: lists for {len(neurons)} layers, and the layers copied are {layers}")
    counts = sorted({len(of_layer) for of_layer in neurons})
    if len(counts) > 1 or counts == [0]:
        raise K2DError(f"{what}: {counts[0]} to {counts[-1]} neurons a layer; give each as many, at least one")
    for number, of_layer in enumerate(neurons):
        outside = [index for index in of_layer if not 0 <= index < total]
        if outside:
            had = f"a layer of the {whose} has {total}, 0 to {total - 1}"
            raise K2DError(f"{what}: no neuron {outside[0]} (list {number}); {had}")
        if len(set(of_layer)) != len(of_layer):
            raise K2DError(f"{what}: the same neuron twice in list {number}")
    return [list(of_layer) for of_layer in neurons]


def student_generation_config(
    teacher: GenerationConfig, decoder_layers: Sequence[int], *, attention_heads: int, language: str | None, task: str
) -> Any:
    """The teacher's generation config, repaired for a decoder that keeps `decoder_layers`.

    Language and task are set and forced ids removed, so that the student transcribes without arguments; alignment
    heads are renumbered, those of layers that are gone removed. Where none is left, or the teacher names none, all
    `attention_heads` of the last half of the layers take their place, as in CTranslate2, so that word timestamps work
    in a small student too.
    """
    config: Any = copy.deepcopy(teacher)  # Whisper's own fields are known to no type
    config.forced_decoder_ids = None
    # False, as openai ships it, makes transformers refuse audio of over 30 s without `return_timestamps=True`
    config.return_timestamps = None
    if getattr(config, "is_multilingual", False):
        config.language = language_code(language or getattr(config, "language", None))
        config.task = task
    position = {layer: index for index, layer in enumerate(decoder_layers)}
    heads = getattr(config, "alignment_heads", None) or []
    kept = [[position[layer], head] for layer, head in heads if layer in position]
    last_half = range(len(decoder_layers) // 2, len(decoder_layers))
    config.alignment_heads = kept or [[layer, head] for layer in last_half for head in range(attention_heads)]
    return config


def copy_layers(
    teacher: WhisperForConditionalGeneration,
    decoder_layers: int | Sequence[int],
    encoder_layers: int | Sequence[int] | None,
    *,
    language: str | None = None,
    task: str = "transcribe",
    complete: Callable[[WhisperForConditionalGeneration], None] | None = None,
) -> WhisperForConditionalGeneration:
    """A student whose layers are copies of the teacher's, in float32; arguments are those of `create_student`.

    Args:
        teacher: left as it is.
        decoder_layers: how many, or which.
        encoder_layers: likewise; None is all.
        language: that the student transcribes by default.
        task: likewise.
        complete: completes the generation config that the student has from its teacher, where that may be old.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    decoder = layer_indices(decoder_layers, teacher.config.decoder_layers, what="decoder_layers")
    encoder = layer_indices(
        teacher.config.encoder_layers if encoder_layers is None else encoder_layers,
        teacher.config.encoder_layers,
        what="encoder_layers",
    )
    config = copy.deepcopy(teacher.config)
    config.decoder_layers, config.encoder_layers = len(decoder), len(encoder)
    with torch.device("meta"):
        student = WhisperForConditionalGeneration(config)
    renamed = {f"model.decoder.layers.{old}.": f"model.decoder.layers.{new}." for new, old in enumerate(decoder)}
    renamed |= {f"model.encoder.layers.{old}.": f"model.encoder.layers.{new}." for new, old in enumerate(encoder)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        head, layers, tail = name.partition(".layers.")
        if layers:
            prefix = f"{head}.layers.{tail.split('.')[0]}."
            if prefix not in renamed:
                continue
            name = renamed[prefix] + name[len(prefix) :]
        weights[name] = tensor.detach().to("cpu", torch.float32, copy=True)
    student.load_state_dict(weights, assign=True)
    student.tie_weights()
    student.generation_config = copy.deepcopy(teacher.generation_config)
    if complete is not None:
        complete(student)
    student.generation_config = student_generation_config(
        student.generation_config,
        decoder,
        attention_heads=config.decoder_attention_heads,
        language=language,
        task=task,
    )
    student.config.name_or_path = teacher.config.name_or_path
    return student


def keep_neurons(
    student: WhisperForConditionalGeneration, encoder_neurons: Sequence[Sequence[int]]
) -> WhisperForConditionalGeneration:
    """Take all other neurons out of the feed-forward networks of a student's encoder layers.

    The encoder is faster for it, and has to be trained, as one with fewer layers has.

    Args:
        student: of `create_student`; it is changed.
        encoder_neurons: for each of its encoder layers which, as indices from 0, as many in each.

    Returns:
        The student.

    Raises:
        K2DError: as `neuron_indices`.
    """
    from torch.nn import Parameter

    config, layers = student.config, student.model.encoder.layers
    for layer, kept in zip(layers, neuron_indices(encoder_neurons, len(layers), config.encoder_ffn_dim), strict=True):
        layer.fc1.weight, layer.fc1.bias = Parameter(layer.fc1.weight[kept]), Parameter(layer.fc1.bias[kept])
        layer.fc2.weight = Parameter(layer.fc2.weight[:, kept])
        layer.fc1.out_features = layer.fc2.in_features = len(kept)
    config.encoder_ffn_dim = layers[0].fc1.out_features
    return student
