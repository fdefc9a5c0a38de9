"""Greedy decoding of a batch of chunks by transformers' Whisper, in which a text that has ended takes no more time.

`generate` carries every row to the end of the longest text, and one that loops goes on for hundreds of tokens. On a CPU
most of a step goes into reading each row's cross-attention cache (37 MB in Whisper base), so finished rows are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import NoRepeatNGramLogitsProcessor

from k2d_hf.files.background import check_cancelled

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


@torch.no_grad()
def decode_greedily(
    model: WhisperForConditionalGeneration,
    encoder_states: torch.Tensor,
    start_ids: Sequence[Sequence[int]],
    *,
    end_id: int,
    max_tokens: int,
    no_repeat_ngram_size: int = 0,
) -> list[list[int]]:
    """The likeliest token at each step, without those that the checkpoint's generation config suppresses.

    So writes `model.generate(num_beams=1, return_timestamps=False, no_repeat_ngram_size=...)` for chunks of up to 30 s.

    Args:
        model: in evaluation mode.
        encoder_states: float [chunks, positions, width].
        start_ids: what each text begins with, all of the same length.
        end_id: `<|endoftext|>`; it and `start_ids` are not among the tokens returned.
        max_tokens: limit for each chunk.
        no_repeat_ngram_size: no run of so many tokens is repeated; 0 is no limit.
    """
    decoder: Any = model.get_decoder()
    device = encoder_states.device
    never = torch.tensor(model.generation_config.suppress_tokens or [], dtype=torch.long, device=device)
    not_first = torch.tensor(model.generation_config.begin_suppress_tokens or [], dtype=torch.long, device=device)
    written: list[list[int]] = [[] for _ in start_ids]
    rows = list(range(len(start_ids)))  # the chunk of each unfinished row
    ids = sequences = torch.tensor(start_ids, device=device)
    cache = None
    no_repeat = NoRepeatNGramLogitsProcessor(no_repeat_ngram_size) if no_repeat_ngram_size else None
    for step in range(max_tokens):
        check_cancelled()
        output = decoder(
            input_ids=ids, encoder_hidden_states=encoder_states[: len(rows)], past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values  # holds what is needed of the encoder's states from now on
        logits = model.proj_out(output.last_hidden_state[:, -1])
        logits[:, never] = -torch.inf
        if step == 0:
            logits[:, not_first] = -torch.inf
        if no_repeat is not None:
            logits = no_repeat(sequences, logits)
        ids = logits.argmax(dim=-1, keepdim=True)
        unfinished = (ids[:, 0] != end_id).nonzero()[:, 0]
        if not len(unfinished):
            break
        if len(unfinished) < len(rows):
            rows = [rows[at] for at in unfinished.tolist()]
            cache.batch_select_indices(unfinished)
            ids, sequences = ids[unfinished], sequences[unfinished]
        for row, token in zip(rows, ids[:, 0].tolist(), strict=True):
            written[row].append(token)
        sequences = torch.cat([sequences, ids], dim=1)
    return written
