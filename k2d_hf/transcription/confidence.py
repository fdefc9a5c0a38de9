"""How sure a model is of the windows of a recording, of what transformers' `generate` keeps of each (labelling)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from k2d_hf.transcription.transcribers import ENTROPY, UNCERTAINTY, DecodingOptions

if TYPE_CHECKING:
    import torch


def kept_by_generate(options: DecodingOptions) -> tuple[str, ...]:
    """What can be known of its windows.

    The scores of a sampled window are divided by a temperature that is not kept, and its probability of no speech is
    not either.
    """
    return () if any(options.temperatures) else (UNCERTAINTY, ENTROPY)


def confidences(
    segments: Sequence[Mapping[str, Any]], options: DecodingOptions, *, end_id: int
) -> list[dict[str, float] | None]:
    """The confidence of each segment of a recording, which those of one window share; None where it is not asked for.

    Args:
        segments: as `generate(return_segments=True)` gives them where it has thresholds, with `result`.
        options: how they were decoded.
        end_id: the token at which a text ends; it counts, as in openai/whisper.
    """
    if not (options.confidence and kept_by_generate(options)):
        return [None] * len(segments)
    windows = {id(segment["result"]): segment["result"] for segment in segments}
    known = {key: _confidence(window, end_id) for key, window in windows.items()}
    return [known[id(segment["result"])] for segment in segments]


def _confidence(window: Mapping[str, Any], end_id: int) -> dict[str, float]:
    """Of the tokens of a window, by its scores [tokens, vocabulary]; of beams those of the one that was taken.

    They are normalised over the tokens that were allowed, as both engines choose among these alone. The entropy is that
    of text: where a segment begins and ends is open by some hundredths of a second in the best of labels.
    """
    import torch

    scores: torch.Tensor = torch.stack(list(window["scores"]))
    tokens = window["sequences"][-len(scores) :].to(scores.device)
    ends = (tokens == end_id).nonzero()
    length = int(ends[0]) + 1 if len(ends) else len(tokens)
    tokens, log_probabilities = tokens[:length], scores[:length].float().log_softmax(-1)
    measured = {UNCERTAINTY: -float(log_probabilities.gather(-1, tokens[:, None]).mean())}
    of_text = log_probabilities[tokens < end_id]
    if len(of_text):
        finite = of_text.clamp(min=torch.finfo(of_text.dtype).min)  # a probability of 0 has no say
        measured[ENTROPY] = -float((finite.exp() * finite).sum(-1).mean())
    return measured
