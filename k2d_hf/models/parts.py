"""Parts of a model: which layers and neurons a student keeps, and the student that is made of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.languages import language_code

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import WhisperForConditionalGeneration


def layer_indices(
    layers: int | Sequence[int] | None, total: int, *, what: str = "decoder_layers", whose: str = "teacher"
) -> list[int]:
    """The layers to copy, as indices from 0.

    Args:
        layers: how many, evenly spaced with the first and the last among them (one is the first), or which; negative
            indices count from the end; None is all.
        total: layers of the model that is copied from.
        what: name of the setting, for errors.
        whose: the model that is copied from, likewise.

    Raises:
        K2DError: for no layer, more than there are, an index outside, or the same layer twice.
    """
    if layers is None:
        return list(range(total))
    if isinstance(layers, int):
        if not 1 <= layers <= total:
            raise K2DError(f"{what}: {layers} layers: the {whose} has {total}, so choose 1 to {total}")
        return [round(index * (total - 1) / max(layers - 1, 1)) for index in range(layers)]
    if not layers:
        raise K2DError(f"{what}: no layer to copy; the {whose} has {total}")
    if outside := [index for index in layers if not -total <= index < total]:
        raise K2DError(f"{what}: no layer {outside[0]}; the {whose} has {total}, 0 to {total - 1}, or -1 for the last")
    indices = [index % total for index in layers]
    if len(set(indices)) != len(indices):
        raise K2DError(f"{what}: the same layer twice in {list(layers)} (the {whose} has {total} layers)")
    return indices


def neuron_indices(
    neurons: Sequence[Sequence[int]], layers: int, total: int, *, whose: str = "teacher"
) -> list[list[int]]:
    """The neurons of feed-forward networks to copy, as indices from 0, a list for each layer.

    Args:
        neurons: for each layer that is copied which; as many in each, as a config has one number (`encoder_ffn_dim`).
        layers: that are copied.
        total: neurons of a layer of the model that is copied from.
        whose: that model, for errors.

    Raises:
        K2DError: for another number of lists, lists of several lengths or of none, a neuron that is not there, or the
            same one twice in a layer.
    """
    what = "encoder_neurons"
    if len(neurons) != layers:
        raise K2DError(f"{what}: lists for {len(neurons)} layers, and the layers copied are {layers}")
    counts = sorted({len(of_layer) for of_layer in neurons})
    if len(counts) > 1 or counts == [0]:
        raise K2DError(f"{what}: {counts[0]} to {counts[-1]} neurons a layer; give each as many, at least one")
    for number, of_layer in enumerate(neurons):
        if outside := [index for index in of_layer if not 0 <= index < total]:
            has = f"a layer of the {whose} has {total}, 0 to {total - 1}"
            raise K2DError(f"{what}: no neuron {outside[0]} (list {number}); {has}")
        if len(set(of_layer)) != len(of_layer):
            raise K2DError(f"{what}: the same neuron twice in list {number}")
    return [list(of_layer) for of_layer in neurons]


def neuron_count(neurons: int | None, total: int, *, what: str = "encoder_neurons", whose: str = "teacher") -> int:
    """How many of a feed-forward network's `total` neurons are kept; None is all.

    Raises:
        K2DError: for none, or more than there are; `what` is the setting's name in it, `whose` the model's.
    """
    if neurons is None:
        return total
    if not 1 <= neurons <= total:
        raise K2DError(f"{what}: {neurons} neurons: a layer of the {whose} has {total}, so choose 1 to {total}")
    return neurons


def largest_neurons(importance: Sequence[Tensor], count: int) -> list[list[int]]:
    """For each layer the `count` neurons of greatest importance ([neurons] of each), as indices in order.

    Of neurons of the same importance the first are taken, so that the same weights give the same student anywhere.
    """
    return [sorted(one.argsort(descending=True, stable=True)[:count].tolist()) for one in importance]


def importance_by_weight(student: WhisperForConditionalGeneration) -> list[Tensor]:
    """Importance of the neurons of each encoder layer, [neurons] each: the norms of what comes in and goes out, times.

    It needs no data. Node pruning by the norm of the incoming or of the outgoing weights is that of He, Fan, Qian, Tan
    and Yu, "Reshaping deep neural network for fast decoding by node-pruning" (ICASSP 2014,
    doi:10.1109/ICASSP.2014.6853595); their product, of norms of the second order, does not change where one of the two
    is scaled up and the other down.
    """
    layers: Any = student.model.encoder.layers
    return [layer.fc1.weight.detach().norm(dim=1) * layer.fc2.weight.detach().norm(dim=0) for layer in layers]


def set_language(student: WhisperForConditionalGeneration, language: str | None, task: str) -> None:
    """Make language and task the student's defaults; None keeps its language, and an English-only one has neither."""
    config: Any = student.generation_config  # Whisper's own fields are known to no type
    config.forced_decoder_ids = None
    if getattr(config, "is_multilingual", False):
        config.language, config.task = language_code(language or getattr(config, "language", None)), task


def copy_layers(
    teacher: WhisperForConditionalGeneration,
    decoder_layers: int | Sequence[int] | None,
    encoder_layers: int | Sequence[int] | None,
) -> WhisperForConditionalGeneration:
    """A student whose layers are copies of the teacher's, in float32; layers are given as to `create_student`.

    Its generation config is the teacher's, with alignment heads renumbered and those of layers that are gone removed.
    Where none is left, or the teacher names none, all heads of the last half of the layers take their place, as in
    CTranslate2, so that word timestamps work in a small student too.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    config = copy.deepcopy(teacher.config)
    decoder = layer_indices(decoder_layers, config.decoder_layers)
    encoder = layer_indices(encoder_layers, config.encoder_layers, what="encoder_layers")
    config.decoder_layers, config.encoder_layers = len(decoder), len(encoder)
    with torch.device("meta"):
        student = WhisperForConditionalGeneration(config)
    weights = {name: tensor for name, tensor in teacher.state_dict().items() if ".layers." not in name}
    for side, kept in (("decoder", decoder), ("encoder", encoder)):
        for new, old in enumerate(kept):
            layer = teacher.get_submodule(f"model.{side}.layers.{old}")
            weights |= layer.state_dict(prefix=f"model.{side}.layers.{new}.")
    copies = {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in weights.items()}
    student.load_state_dict(copies, assign=True)
    student.tie_weights()
    settings: Any = copy.deepcopy(teacher.generation_config)
    # False, as openai ships it, makes transformers refuse audio of over 30 s without `return_timestamps=True`
    settings.return_timestamps = None
    position = {old: new for new, old in enumerate(decoder)}
    heads = getattr(settings, "alignment_heads", None) or []
    last_half = range(len(decoder) // 2, len(decoder))
    settings.alignment_heads = [[position[layer], head] for layer, head in heads if layer in position] or [
        [layer, head] for layer in last_half for head in range(config.decoder_attention_heads)
    ]
    student.generation_config = settings
    return student


def keep_neurons(
    student: WhisperForConditionalGeneration, encoder_neurons: Sequence[Sequence[int]]
) -> WhisperForConditionalGeneration:
    """Take all other neurons out of the feed-forward networks of a student's encoder layers.

    The encoder is faster for it, and has to be trained, as one with fewer layers has. The student of `create_student`
    is changed, and returned. `encoder_neurons` are as for `neuron_indices`, which says what is wrong with others.
    """
    from torch.nn import Parameter

    config, layers = student.config, student.model.encoder.layers
    for layer, kept in zip(layers, neuron_indices(encoder_neurons, len(layers), config.encoder_ffn_dim), strict=True):
        layer.fc1.weight, layer.fc1.bias = Parameter(layer.fc1.weight[kept]), Parameter(layer.fc1.bias[kept])
        layer.fc2.weight = Parameter(layer.fc2.weight[:, kept])
        layer.fc1.out_features = layer.fc2.in_features = len(kept)
    config.encoder_ffn_dim = layers[0].fc1.out_features
    return student
