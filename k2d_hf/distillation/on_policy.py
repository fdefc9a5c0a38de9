"""On-policy distillation (GKD, arXiv 2306.13649): the student writes, the teacher judges each token of it.

Labels show the student what is right after what is right. In long-form decoding it meets its own mistakes, and there
loops and omissions begin. In a share of the steps the label is therefore what the student itself writes of the same
input, after the same prompt and first tokens; the loss there is the divergence from the teacher alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from k2d_hf.distillation.batches.collator import pad_examples
from k2d_hf.distillation.batches.target_columns import Example
from k2d_hf.distillation.loss.losses import LossSums
from k2d_hf.distillation.measures import PARTS
from k2d_hf.models.whisper_tokens import IGNORED

LONGEST = 2.0  # of what the student writes, against the longest label of the batch: room for a loop to show


def is_on_policy(share: float, *, seed: int, step: int) -> bool:
    """Whether the student writes the labels of a step: the same in every process, and after a resume."""
    return share > 0 and random.Random(f"{seed} on-policy {step}").random() < share


@torch.no_grad()
def with_own_labels(
    student: WhisperForConditionalGeneration, batch: dict[str, Tensor], states: Tensor, *, temperature: float
) -> dict[str, Tensor]:
    """A batch with the `decoder_input_ids` and `labels`, [B, L'] each, that the student itself writes.

    Args:
        student: the Whisper itself, not as it is wrapped for training.
        batch: `decoder_input_ids` and `labels` [B, L]; the prompt and the first tokens stay, and are not supervised.
        states: of the student's encoder, [B, frames, d].
        temperature: of sampling; 0 is greedy.
    """
    model: Any = student
    settings: Any = student.generation_config
    end, first_timestamp = settings.eos_token_id, settings.no_timestamps_token_id + 1
    inputs, labels = batch["decoder_input_ids"], batch["labels"]
    supervised = labels != IGNORED
    begins = supervised.int().argmax(dim=1)  # [B], where <|startoftranscript|> is the input
    written_by_nobody = (labels > end) & (labels < first_timestamp)  # language, task, <|notimestamps|>
    most = int(LONGEST * int(supervised.sum(dim=1).max()))
    groups: dict[int, list[int]] = defaultdict(list)  # rows by the length of what is given
    for row, length in enumerate((begins + 1 + written_by_nobody.sum(dim=1)).tolist()):
        groups[length].append(row)
    examples: list[Example] = [([], [])] * len(labels)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    was_training = student.training
    student.eval()
    for length, members in groups.items():
        config = GenerationConfig(
            max_length=min(length + most, student.config.max_target_positions),
            eos_token_id=end, pad_token_id=end, **sampling,
        )  # fmt: skip
        written = GenerationMixin.generate(
            model,  # and not as Whisper's own, which decodes again what looks wrong
            encoder_outputs=BaseModelOutput(last_hidden_state=states[members].to(student.dtype)),
            decoder_input_ids=inputs[members, :length],
            generation_config=config,
        )
        for row, ids in zip(members, written, strict=True):
            ends = (ids[length:] == end).nonzero()
            whole = ids[: length + int(ends[0]) + 1 if len(ends) else None].tolist()
            examples[row] = whole[:-1], [IGNORED] * (length - 1) + whole[length:]
    student.train(was_training)
    own_inputs, own_labels = (padded.to(labels.device) for padded in pad_examples(examples, padding=end))
    given = {name: value for name, value in batch.items() if name != "token_weights"}  # of another label
    return {**given, "decoder_input_ids": own_inputs, "labels": own_labels}


def as_many_tokens(sums: LossSums, tokens: int) -> LossSums:
    """The sums without cross-entropy, as if of so many tokens: a step counts as its labels do, whatever was written."""
    ratio = tokens / max(sums.tokens, 1)
    scaled = {name: getattr(sums, name) * ratio for name in PARTS}
    return replace(sums, **{**scaled, "ce": torch.zeros_like(sums.ce)}, tokens=tokens)
