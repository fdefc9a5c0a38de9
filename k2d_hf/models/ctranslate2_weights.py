"""The weights of a CTranslate2 Whisper file under the names that transformers uses.

Part of where checkpoints come from; ctranslate2/specs/whisper_spec.py and WhisperForConditionalGeneration are the two
ends of the table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import short_name
from k2d_hf.models.ctranslate2_file import CTranslate2File

if TYPE_CHECKING:
    from transformers import WhisperConfig

# CTranslate2's names on the left, transformers' on the right.
_OUTSIDE_LAYERS = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/position_encodings": "model.encoder.embed_positions",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/embeddings": "model.decoder.embed_tokens",
    "decoder/position_encodings": "model.decoder.embed_positions",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "decoder/projection": "proj_out",
}
# More than one name on the right: projections that CTranslate2 stores as one array, row after row.
_INSIDE_LAYERS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}
_PARAMETERS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}
_IN_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)")
_BYTES = 4  # of a float32
_MOST_GROWTH = 32  # of a file that is read: 4 for int8, and layers that are aliases of each other
# Far beyond any Whisper; the network of that many layers, or the filters of that many mel bins, would fill the memory.
_LIMITS = {"num_mel_bins": 1024, "encoder_layers": 512, "decoder_layers": 512}


def transformers_weights(model: CTranslate2File) -> dict[str, np.ndarray]:
    """All arrays of the file as float32 under transformers' names, without a tied output projection.

    K2DError if the file holds arrays that a Whisper model does not have, or the same one over and over.
    """
    size = _BYTES * sum(model.variables[model.aliases.get(name, name)].size for name in model.array_names())
    if size > _MOST_GROWTH * model.path.stat().st_size:
        raise K2DError(f"{model.path}: its aliases make {size} bytes of it; no Whisper does that, so it is not read")
    weights: dict[str, np.ndarray] = {}
    for name in model.array_names():
        scope, _, parameter = name.rpartition("/")
        targets = [_OUTSIDE_LAYERS[scope]] if scope in _OUTSIDE_LAYERS else []
        if in_layer := _IN_LAYER.fullmatch(scope):
            side, layer, part = in_layer.groups()
            targets = [f"model.{side}.layers.{layer}.{target}" for target in _INSIDE_LAYERS.get(part, ())]
        if parameter not in _PARAMETERS or not targets:
            raise K2DError(f"{model.path}: {short_name(name)} is not part of a Whisper model as transformers knows it")
        array = model.array(name)
        if len(array) % len(targets):
            raise K2DError(
                f"{model.path}: {short_name(name)} has {len(array)} rows, which {len(targets)} projections cannot share"
            )
        for target, rows in zip(targets, np.split(array, len(targets)), strict=True):
            weights[f"{target}.{_PARAMETERS[parameter]}"] = rows
    # transformers has no bias of keys. It moves all scores of a query alike, and the softmax takes that out again.
    weights = {name: array for name, array in weights.items() if not name.endswith("k_proj.bias")}
    embeddings = weights.get("model.decoder.embed_tokens.weight")
    if embeddings is not None and np.array_equal(weights.get("proj_out.weight", embeddings), embeddings):
        weights.pop("proj_out.weight", None)
    return weights


def weight_shapes(model: CTranslate2File, weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """The settings of `WhisperConfig` by the shapes of the weights; K2DError for missing ones, and for no Whisper's."""

    def shape(name: str, dimensions: int = 2) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != dimensions:
            raise K2DError(f"{model.path}: incomplete Whisper model, no {name} of {dimensions} dimensions")
        return weights[name].shape

    def layers(side: str) -> int:
        return len({name.split(".")[3] for name in weights if name.startswith(f"model.{side}.layers.")})

    vocabulary, width = shape("model.decoder.embed_tokens.weight")
    shapes = {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": shape("model.encoder.conv1.weight", 3)[1],
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_ffn_dim": shape("model.encoder.layers.0.fc1.weight")[0],
        "decoder_ffn_dim": shape("model.decoder.layers.0.fc1.weight")[0],
        "max_source_positions": shape("model.encoder.embed_positions.weight")[0],
        "max_target_positions": shape("model.decoder.embed_positions.weight")[0],
    }
    for name, most in _LIMITS.items():
        if shapes[name] > most:
            raise K2DError(f"{model.path}: {name} is {shapes[name]}; no Whisper has more than {most}")
    return shapes


def check_against_architecture(model: CTranslate2File, weights: dict[str, np.ndarray], config: WhisperConfig) -> None:
    """Raise K2DError unless `weights` are, by name and shape, exactly the parameters of a Whisper of this `config`."""
    import torch
    from transformers import WhisperForConditionalGeneration

    heads = (config.encoder_attention_heads, config.decoder_attention_heads)
    if any(count < 1 or config.d_model % count for count in heads):
        raise K2DError(f"{model.path}: {heads} attention heads do not divide a width of {config.d_model}")
    with torch.device("meta"):
        expected = WhisperForConditionalGeneration(config).state_dict()
    if config.tie_word_embeddings:
        del expected["proj_out.weight"]
    for name in sorted(expected.keys() | weights.keys()):
        wanted = tuple(expected[name].shape) if name in expected else None
        found = weights[name].shape if name in weights else None
        if wanted != found:
            raise K2DError(f"{model.path}: {short_name(name)} has shape {found} where Whisper has {wanted}")
