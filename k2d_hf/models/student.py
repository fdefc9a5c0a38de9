"""The student: the teacher with fewer decoder layers (K2D, stage 3; the paper keeps the first and the last)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.generation import complete_generation_config, generation_gaps
from k2d_hf.models.language_mix import checked_mix, mix_language_token
from k2d_hf.models.languages import checked_language
from k2d_hf.models.parts import (
    copy_layers,
    importance_by_weight,
    keep_neurons,
    largest_neurons,
    neuron_count,
    set_language,
)
from k2d_hf.models.processors import load_tokenizer
from k2d_hf.models.sources import load_whisper, resolve_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import WhisperForConditionalGeneration

logger = logging.getLogger(__name__)


def create_student(
    teacher: str | Path | Sequence[str] | WhisperForConditionalGeneration,
    decoder_layers: int | Sequence[int] | None = 2,
    encoder_layers: int | Sequence[int] | None = None,
    *,
    encoder_neurons: int | None = None,
    language: str | None = None,
    task: str = "transcribe",
    tokenizer: Any = None,
    language_mix: Mapping[str, float] | None = None,
) -> WhisperForConditionalGeneration:
    """A student whose layers are copies of the teacher's.

    Args:
        teacher: checkpoint (path, Hub id, or several to try in order), or the model itself, which is left as it is.
        decoder_layers: how many, evenly spaced with first and last, or which; None is all; the paper's are 2 of 32.
        encoder_layers: likewise; None keeps all of the encoder.
        encoder_neurons: how many neurons each feed-forward network of the encoder keeps, those with the largest weights
            (`k2d_hf.models.parts.importance_by_weight`); None is all. Such an encoder has to be trained.
        language: that the student transcribes by default, as a code or a name such as `zh`; None keeps the teacher's.
        task: `transcribe` or `translate`, likewise.
        tokenizer: the teacher's, from which languages and timestamps come where its generation config is too old to
            have them; by default the one saved with the teacher.
        language_mix: shares of languages in the embedding that the token of `language` begins with, such as
            `{"zh": 0.5, "en": 0.5}` (`k2d_hf.models.language_mix`); None keeps the teacher's.

    Returns:
        The student in float32, token embeddings tied as in the teacher, ready to train.

    Raises:
        K2DError: for no layer, an index out of range or a repeated one, no neuron or more than there are, an unknown
            language, a mix that is none, or a teacher that is not a Whisper.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    language = checked_language(language)
    if language_mix is not None and language is not None:
        checked_mix(language_mix, language)  # before a large teacher is loaded
    if not isinstance(teacher, torch.nn.Module):
        teacher = load_whisper(teacher)
    if not isinstance(teacher, WhisperForConditionalGeneration):
        raise K2DError(f"the teacher is a {type(teacher).__name__}, not a Whisper with a language-model head")
    count = neuron_count(encoder_neurons, teacher.config.encoder_ffn_dim)
    student = copy_layers(teacher, decoder_layers, encoder_layers)
    if count < student.config.encoder_ffn_dim:
        keep_neurons(student, largest_neurons(importance_by_weight(student), count))
    _complete(student, tokenizer)
    set_language(student, language, task)
    if language_mix is not None:
        mix_language_token(student, language_mix)
    return student


def _complete(student: WhisperForConditionalGeneration, tokenizer: Any) -> None:
    """Complete the generation config that the student has from its teacher, or warn where that is impossible."""
    lacking = generation_gaps(student.generation_config)
    if lacking and tokenizer is None:
        try:
            if not (teacher := student.config.name_or_path):  # the empty path is that of the working folder
                raise K2DError("a model that was made in memory")
            tokenizer = load_tokenizer(resolve_checkpoint(teacher).path)
        except (K2DError, OSError, ValueError):
            logger.warning(
                "the teacher's generation config has no %s, and its tokenizer is not known: the student may be refused "
                "a language or timestamps; give tokenizer, or load the teacher from its checkpoint",
                ", ".join(lacking),
            )
            return
    complete_generation_config(student, lambda: tokenizer)
