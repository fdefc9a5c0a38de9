"""The models that write soft targets: chunks in, columns of targets out (K2D, stage 3, its KL)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from k2d_hf.distillation.batches.collator import K2DDataCollator, pad_examples
from k2d_hf.distillation.batches.rows import reasons_to_leave_out
from k2d_hf.distillation.batches.target_columns import (
    Example,
    columns_of,
    digest_of,
    embedding_digest,
    number_format,
    target_features,
)
from k2d_hf.distillation.loss.losses import Head, StoredTargets, check_vocabulary
from k2d_hf.distillation.models import decode, encode, load_frozen_model, output_embedding
from k2d_hf.distillation.targets.encoder_states import EncoderStates, number_format_of_states
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.errors import K2DError
from k2d_hf.models.sources import model_fingerprint
from k2d_hf.models.whisper_tokens import IGNORED

if TYPE_CHECKING:
    from datasets import Features
    from transformers import WhisperForConditionalGeneration

BLOCK_TOKENS = 128  # positions whose logits are in memory at once


def check_temperature(temperature: float) -> None:
    """Raise K2DError for one by which nothing can be divided."""
    if not 0 < temperature < float("inf"):
        raise K2DError(f"temperature {temperature}: give a temperature above 0")


def top_tokens(head: Head, *, k: int, temperature: float) -> StoredTargets:
    """The k most likely tokens of each position [N, k], most likely first, with log-probabilities at a temperature."""
    ids, logprobs = [], []
    for hidden in head.hidden.split(BLOCK_TOKENS):  # one empty block if there are no positions
        logits = (hidden.to(head.embedding.dtype) @ head.embedding.T).float().div_(temperature)
        top = logits.topk(k, dim=-1)
        ids.append(top.indices.int())
        logprobs.append((top.values - logits.logsumexp(-1, keepdim=True)).half())
    return StoredTargets(torch.cat(ids), torch.cat(logprobs))


class TargetWriter:
    """Models and collator: chunks in, their targets out. Arguments and errors are those of `add_soft_targets`."""

    def __init__(
        self,
        teacher: str | Path | WhisperForConditionalGeneration,
        collator: K2DDataCollator,
        settings: TargetsSettings,
        *,
        auxiliary: str | Path | WhisperForConditionalGeneration | None,
        temperature: float,
        encoder_states_dir: str | Path | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        check_temperature(temperature)
        given = {"teacher": teacher} if auxiliary is None else {"teacher": teacher, "auxiliary": auxiliary}
        self.models = {name: _load(name, model, collator, settings.device) for name, model in given.items()}
        self.kinds = {name: settings.kind if name == "teacher" else "top" for name in given}
        self.collator, self.settings, self.temperature = collator, settings, temperature
        self.on_progress = on_progress or (lambda count: None)
        # states are known by the weights as they are on disk, so before these become coarser; they do not with them
        encoder = self.models["teacher"].model.encoder
        self.cached_states = EncoderStates(encoder_states_dir, encoder) if encoder_states_dir else None
        hidden = settings.kind == "hidden"
        self.embedding = embedding_digest(output_embedding(self.models["teacher"])) if hidden else None
        model: Any
        for name, model in self.models.items():
            wanted = _number_format(settings.dtype, model)
            model.model.decoder.to(wanted)
            model.proj_out.to(wanted)
            model.model.encoder.to(number_format_of_states(model.device) if name == "teacher" else wanted)

    def depends(self) -> dict[str, Any]:
        """All that the targets of a chunk depend on, ready for JSON."""
        top = {"k": self.settings.k, "temperature": self.temperature} if "top" in self.kinds.values() else {}
        models = {name: model_fingerprint(model) for name, model in self.models.items()}
        written = {"kind": self.settings.kind, "dtype": self.settings.dtype, "models": models}
        return {**written, **top, **self.collator.label_settings()}

    def width(self, name: str) -> int:
        """Numbers that are stored of a model for each position."""
        return self.models[name].config.d_model if self.kinds[name] == "hidden" else self.settings.k

    def features(self) -> Features:
        """Columns and types of the targets."""
        return target_features(self.kinds, {name: self.width(name) for name in self.models})

    def columns(self, chunks: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Target columns of any number of chunks, a batch at a time: first the encoder's states, then the decoder."""
        columns: dict[str, list[Any]] = defaultdict(list)
        for at in range(0, len(chunks), self.settings.batch_size):
            batch = chunks[at : at + self.settings.batch_size]
            self.cache_states(batch)
            for name, values in self(batch).items():
                columns[name] += values
        return dict(columns)

    def wants(self, chunk: dict[str, Any]) -> bool:
        """Whether a chunk gets targets: if it is kept, and its label is not too long."""
        return reasons_to_leave_out([chunk], self.collator) == [None]

    def cache_states(self, chunks: Iterable[dict[str, Any]]) -> None:
        """Cache the encoder states of every input that training may draw of some chunks."""
        if self.cached_states is None:
            return
        spans = [span for chunk in chunks if self.wants(chunk) for span in self.collator.spans(chunk)]
        teacher = self.models["teacher"]
        self.cached_states.write_all(
            (dict(spans[index]) for index in self.cached_states.missing(spans)),
            lambda batch: encode(teacher, self.collator.features(batch).to(teacher.device)),
            batch_size=self.settings.batch_size,
        )

    @torch.no_grad()
    def __call__(self, chunks: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Target columns of some chunks, which go through the models together."""
        wanted = [index for index, chunk in enumerate(chunks) if self.wants(chunk)]
        forms: list[list[dict[str, Any]]] = [[] for _ in chunks]
        found: dict[str, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))  # a part a form, by chunk
        by_form: dict[tuple[bool, bool], dict[int, Example]] = defaultdict(dict)
        for row, index in enumerate(wanted):
            for drawn, example in self.collator.forms(chunks[index]).items():
                by_form[drawn][row] = example
        states: dict[bool, dict[str, Tensor]] = {}  # by whether windows are full
        for (timestamps, prompt), examples in sorted(by_form.items()):  # whatever else is in the batch
            full = timestamps and self.collator.full_windows
            if full not in states:
                states[full] = self._encode([self.collator.span(chunks[i], timestamps=timestamps) for i in wanted])
            # by itself each gives the same numbers to the last bit, and a CPU gains nothing by several at once
            alone = self.models["teacher"].device.type == "cpu"
            for together in [{row: example} for row, example in examples.items()] if alone else [examples]:
                for name, targets in self._form(states[full], together).items():
                    for row, part in zip(together, targets, strict=True):
                        found[name][wanted[row]].append(part)
            for row, example in examples.items():
                filled = self.collator.fills_window(chunks[wanted[row]], timestamps=timestamps)
                tokens, digest = sum(label != IGNORED for label in example[1]), digest_of(example, full_window=filled)
                form = {"timestamps": timestamps, "prompt": prompt, "tokens": tokens, "digest": digest}
                forms[wanted[row]].append(form)
        self.on_progress(len(chunks))
        columns: dict[str, list[Any]] = {
            "target_forms": forms,
            "target_temperature": [self.temperature if "top" in self.kinds.values() else None] * len(chunks),
            "target_embedding": [self.embedding] * len(chunks),
        }
        for model, kind in self.kinds.items():
            for name in columns_of(model, kind):
                nothing = np.zeros((0, self.width(model)), number_format(name))
                parts = (found[name][index] for index in range(len(chunks)))
                columns[name] = [torch.cat(part).numpy() if part else nothing for part in parts]
        return columns

    def _encode(self, chunks: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Encoder states of each model, [chunks, frames, d]; the teacher's as training reads them, cached or not."""
        states: dict[str, Tensor] = {}
        features: Tensor | None = None
        for name, model in self.models.items():
            if self.cached_states is not None and name == "teacher":
                states[name] = self.cached_states.batch(chunks).to(model.device)
                continue
            features = self.collator.features(chunks) if features is None else features
            computed = encode(model, features.to(model.device))
            states[name] = computed.half() if name == "teacher" else computed
        return states

    def _form(self, states: dict[str, Tensor], examples: dict[int, Example]) -> dict[str, tuple[Tensor, ...]]:
        """Columns of each model for one form of the labels, a part for each example."""
        inputs, labels = pad_examples(list(examples.values()), padding=self.collator.encoder.special.end_of_text)
        rows = torch.tensor(list(examples))
        supervised = labels != IGNORED
        lengths = supervised.sum(-1).tolist()
        columns: dict[str, Tensor] = {}
        for name, model in self.models.items():
            hidden = decode(model, states[name][rows.to(states[name].device)], inputs.to(model.device))
            hidden = hidden[supervised.to(model.device)]
            if self.kinds[name] == "hidden":
                columns[f"{name}_hidden"] = hidden.half()
                continue
            top = top_tokens(Head(hidden, output_embedding(model)), k=self.settings.k, temperature=self.temperature)
            columns |= {f"{name}_top_ids": top.ids, f"{name}_top_logprobs": top.logprobs}
        return {name: values.cpu().split(lengths) for name, values in columns.items()}


def _load(name: str, model: Any, collator: K2DDataCollator, device: str) -> WhisperForConditionalGeneration:
    from k2d_hf.transcription.transcribers import resolve_device

    frozen: Any = load_frozen_model(
        name, model, mel_bins=collator.processor.feature_extractor.feature_size, whose="the processor"
    )
    if len(collator.processor.tokenizer) > frozen.config.vocab_size:
        check_vocabulary(name, frozen.config.vocab_size, len(collator.processor.tokenizer))
    return frozen.to(resolve_device(device))


def _number_format(dtype: str, model: WhisperForConditionalGeneration) -> torch.dtype:
    if dtype == "auto":
        return number_format_of_states(model.device)
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise K2DError(f"dtype {dtype!r} is none for a model: choose auto, float32, float16 or bfloat16")
    return found
