"""Shapes of Whisper models: from a config, or by name for those that OpenAI published, and what follows from them.

For the plan of a run with a model whose weights are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

FRAMES = 1500  # positions of the encoder for 30 s
POSITIONS = 448  # of the decoder


@dataclass(frozen=True)
class WhisperShape:
    """What decides the number of parameters."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    vocab_size: int = 51865
    num_mel_bins: int = 80
    encoder_ffn_dim: int = 0  # 0: four times d_model
    decoder_ffn_dim: int = 0
    frames: int = FRAMES
    positions: int = POSITIONS

    @property
    def encoder_neurons(self) -> int:
        """Of the feed-forward network of an encoder layer."""
        return self.encoder_ffn_dim or 4 * self.d_model

    @property
    def decoder_neurons(self) -> int:
        """Of the feed-forward network of a decoder layer."""
        return self.decoder_ffn_dim or 4 * self.d_model

    @property
    def encoder_parameters(self) -> int:
        """Of convolutions, positions and layers."""
        d, ffn = self.d_model, self.encoder_neurons
        convolutions = 3 * self.num_mel_bins * d + d + 3 * d * d + d
        layer = 4 * d * d + 3 * d + 2 * d * ffn + ffn + d + 4 * d  # attention (keys have no bias), ffn, two norms
        return convolutions + self.frames * d + self.encoder_layers * layer + 2 * d

    @property
    def decoder_parameters(self) -> int:
        """Of the embedding, which is the output layer too, positions and layers."""
        d, ffn = self.d_model, self.decoder_neurons
        layer = 2 * (4 * d * d + 3 * d) + 2 * d * ffn + ffn + d + 6 * d
        return (self.vocab_size + self.positions) * d + self.decoder_layers * layer + 2 * d

    @property
    def parameters(self) -> int:
        """Of all of it."""
        return self.encoder_parameters + self.decoder_parameters


# From the config.json of each repository on the Hub.
_KNOWN = {
    "tiny": WhisperShape(384, 4, 4),
    "base": WhisperShape(512, 6, 6),
    "small": WhisperShape(768, 12, 12),
    "medium": WhisperShape(1024, 24, 24),
    "large": WhisperShape(1280, 32, 32),
    "large-v2": WhisperShape(1280, 32, 32),
    "large-v3": WhisperShape(1280, 32, 32, 51866, 128),
    "large-v3-turbo": WhisperShape(1280, 32, 4, 51866, 128),
}
_ENGLISH = ("tiny", "base", "small", "medium")


def known_shape(name: str) -> WhisperShape | None:
    """The shape of a model by its Hub id, `openai/whisper-base` or `openai/whisper-base.en`; None for others."""
    owner, _, model = name.partition("/whisper-")
    kind = model.partition("@")[0]
    if owner != "openai":
        return None
    if kind.endswith(".en") and kind[:-3] in _ENGLISH:
        return replace(_KNOWN[kind[:-3]], vocab_size=51864)
    return _KNOWN.get(kind)


def shape_of_config(config: Mapping[str, Any]) -> WhisperShape | None:
    """The shape in a `config.json`; None where it is not Whisper's."""
    names = [one.name for one in fields(WhisperShape)[:-2]]
    try:
        return WhisperShape(
            **{name: int(config[name]) for name in names},
            frames=int(config.get("max_source_positions", FRAMES)),
            positions=int(config.get("max_target_positions", POSITIONS)),
        )
    except (KeyError, TypeError, ValueError):
        return None
