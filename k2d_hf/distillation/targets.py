"""Soft targets, written once: the teacher's most likely tokens for every supervised token (K2D, stage 3, its KL).

With them, training needs no teacher in memory. Which form a label has, with timestamps or plain, with a prompt or
without, is drawn anew in each epoch, so targets are stored for every form that a draw can give, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from k2d_hf.distillation.collator import K2DDataCollator, pad_examples
from k2d_hf.distillation.encoder_states import EncoderStates
from k2d_hf.distillation.losses import Head, SoftTargets, check_vocabulary
from k2d_hf.distillation.parties import decode, encode, load_party, output_embedding
from k2d_hf.distillation.target_columns import Example, digest_of, target_features, without_targets
from k2d_hf.errors import K2DError
from k2d_hf.journal import map_rows
from k2d_hf.whisper_tokens import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import WhisperForConditionalGeneration

TOP_TOKENS = 32
BLOCK_TOKENS = 128  # positions whose logits are in memory at once


def add_soft_targets(
    chunks: Dataset,
    teacher: str | Path | WhisperForConditionalGeneration,
    collator: K2DDataCollator,
    *,
    auxiliary: str | Path | WhisperForConditionalGeneration | None = None,
    temperature: float = 2.0,
    k: int = TOP_TOKENS,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    encoder_states_dir: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Store the teacher's k most likely tokens, with log-probabilities, for each supervised token of each chunk.

    What the k tokens leave is one bucket, so that the KL of the loss becomes the KL between two coarser distributions,
    which is at most the whole.

    Args:
        chunks: what `validate_labels` gave; those with `keep` false and those whose label is too long get nothing.
        teacher: model or checkpoint.
        collator: that of the training to come: it knows the labels and the forms that draws can give.
        auxiliary: model or checkpoint, where the loss has its KL too.
        temperature: of the loss (T); targets of another temperature would not do.
        k: tokens stored for each position.
        batch_size: chunks in one pass.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: number format of the models; `auto` is float32 on a CPU and float16 on a GPU.
        encoder_states_dir: folder for the teacher's encoder states, kept for training where student and teacher share
            the encoder; nothing is kept if None.
        on_progress: called with the number of chunks done.

    Returns:
        The same rows with `teacher_top_ids` [tokens, k] int32 and `teacher_top_logprobs` [tokens, k] float16, tokens
        being those of all forms; `target_forms`, a list of form, tokens, and a digest of its ids; and
        `target_temperature`; where there is an auxiliary, `auxiliary_top_ids` and `auxiliary_top_logprobs` likewise.

    Raises:
        K2DError: for k or temperature out of range, or models that do not fit the collator's processor.
    """
    if k < 1 or not 0 < temperature < float("inf"):
        raise K2DError(f"k={k}, temperature={temperature}: give at least 1 token and a temperature above 0")
    models = {"teacher": _load("teacher", teacher, collator, device)}
    if auxiliary is not None:
        models["auxiliary"] = _load("auxiliary", auxiliary, collator, device)
    # the files of the states are known by the weights as they are on disk, so before these become coarser
    kept = EncoderStates(encoder_states_dir, models["teacher"].model.encoder) if encoder_states_dir else None
    model: Any
    for model in models.values():
        model.to(_number_format(dtype, model))
    stage = _Targets(models, collator, k, temperature, kept, on_progress)
    return map_rows(
        without_targets(chunks),
        stage,
        features=type(chunks.features)(
            {**without_targets(chunks).features, **target_features(k, auxiliary=auxiliary is not None)}
        ),
        batch_size=batch_size,
        desc="targets",
    )


def top_tokens(head: Head, *, k: int, temperature: float) -> SoftTargets:
    """The k most likely tokens of each position, most likely first, with log-probabilities at a temperature.

    Args:
        head: hidden states [N, d] and embedding [V, d].
        k: tokens to keep, at most V.
        temperature: by which logits are divided.
    """
    ids, logprobs = [], []
    for start in range(0, len(head.hidden), BLOCK_TOKENS):
        hidden = head.hidden[start : start + BLOCK_TOKENS].to(head.embedding.dtype)
        logits = (hidden @ head.embedding.T).float().div_(temperature)
        top = logits.topk(k, dim=-1)
        ids.append(top.indices.int())
        logprobs.append((top.values - logits.logsumexp(-1, keepdim=True)).half())
    if not ids:
        empty = head.hidden.new_empty(0, k)
        return SoftTargets(empty.int(), empty.half())
    return SoftTargets(torch.cat(ids), torch.cat(logprobs))


class _Targets:
    """The map step: a batch of chunks in, their targets out."""

    def __init__(
        self,
        models: dict[str, WhisperForConditionalGeneration],
        collator: K2DDataCollator,
        k: int,
        temperature: float,
        kept: EncoderStates | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.models = models
        self.collator = collator
        self.k = k
        self.temperature = temperature
        self.kept = kept
        self.on_progress = on_progress or (lambda count: None)

    @torch.no_grad()
    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names = list(batch)
        chunks = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        wanted = [index for index, chunk in enumerate(chunks) if chunk.get("keep", True) and self.collator.fits(chunk)]
        forms: dict[int, list[dict[str, Any]]] = {index: [] for index in range(len(chunks))}
        found: dict[str, dict[int, list[SoftTargets]]] = {name: {index: [] for index in forms} for name in self.models}
        if wanted:
            states = self._encode([chunks[index] for index in wanted])
            by_form: dict[tuple[bool, bool], dict[int, Example]] = {}
            for row, index in enumerate(wanted):
                for form, example in self.collator.forms(chunks[index]).items():
                    by_form.setdefault(form, {})[row] = example
            for (timestamps, prompt), examples in by_form.items():
                for name, targets in self._form(states, examples).items():
                    for row, part in targets.items():
                        found[name][wanted[row]].append(part)
                for row, (inputs, labels) in examples.items():
                    forms[wanted[row]].append(
                        {
                            "timestamps": timestamps,
                            "prompt": prompt,
                            "tokens": sum(label != IGNORED for label in labels),
                            "digest": digest_of((inputs, labels)),
                        }
                    )
        self.on_progress(len(chunks))
        columns: dict[str, list[Any]] = {
            "target_forms": list(forms.values()),
            "target_temperature": [self.temperature] * len(chunks),
        }
        for name, by_chunk in found.items():
            columns[f"{name}_top_ids"] = [self._join(parts, "ids", np.int32) for parts in by_chunk.values()]
            columns[f"{name}_top_logprobs"] = [self._join(parts, "logprobs", np.float16) for parts in by_chunk.values()]
        return columns

    def _encode(self, chunks: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Encoder states of each model, [chunks, frames, d]."""
        states: dict[str, Tensor] = {}
        features: Tensor | None = None
        for name, model in self.models.items():
            kept = self.kept if name == "teacher" else None
            if kept is None or kept.missing(chunks):
                features = self.collator.features(chunks) if features is None else features
                states[name] = encode(model, features.to(model.device))
                if kept is not None:
                    for chunk, part in zip(chunks, states[name].float().cpu().numpy(), strict=True):
                        kept.write(chunk, part)
            if kept is not None:  # as training will see them, whether they were there or not
                states[name] = kept.batch(chunks).to(model.device)
        return states

    def _form(self, states: dict[str, Tensor], examples: dict[int, Example]) -> dict[str, dict[int, SoftTargets]]:
        """Targets of each model for one form of the labels, by row of the states."""
        inputs, labels = pad_examples(list(examples.values()), padding=self.collator.encoder.special.end_of_text)
        rows = torch.tensor(list(examples))
        supervised = labels != IGNORED
        lengths = supervised.sum(-1).tolist()
        targets: dict[str, dict[int, SoftTargets]] = {}
        for name, model in self.models.items():
            hidden = decode(model, states[name][rows.to(states[name].device)], inputs.to(model.device))
            head = Head(hidden[supervised.to(model.device)], output_embedding(model))
            top = top_tokens(head, k=self.k, temperature=self.temperature)
            ids, logprobs = top.ids.cpu().split(lengths), top.logprobs.cpu().split(lengths)
            targets[name] = dict(zip(examples, map(SoftTargets, ids, logprobs), strict=True))
        return targets

    def _join(self, parts: Sequence[SoftTargets], name: str, dtype: Any) -> np.ndarray:
        if not parts:
            return np.zeros((0, self.k), dtype)
        return np.concatenate([getattr(part, name).numpy() for part in parts])


def _load(name: str, model: Any, collator: K2DDataCollator, device: str) -> WhisperForConditionalGeneration:
    from k2d_hf.labelling.transcribers import resolve_device

    party: Any = load_party(
        name, model, mel_bins=collator.processor.feature_extractor.feature_size, whose="the processor"
    )
    if len(collator.processor.tokenizer) > party.config.vocab_size:
        check_vocabulary(name, party.config.vocab_size, len(collator.processor.tokenizer))
    return party.to(resolve_device(device))


def _number_format(dtype: str, model: WhisperForConditionalGeneration) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if model.device.type == "cpu" else torch.float16
    number_format = getattr(torch, dtype, None)
    if not isinstance(number_format, torch.dtype) or not number_format.is_floating_point:
        raise K2DError(f"dtype {dtype!r} is none for a model: choose auto, float32, float16 or bfloat16")
    return number_format
