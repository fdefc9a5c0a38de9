"""Soft targets, written once: what the teacher says at every supervised token (K2D, stage 3, its KL).

With them, training needs no teacher in memory. Two kinds: `hidden`, the teacher's last hidden state, of which the
embedding that student and teacher begin with makes the whole distribution; and `top`, its k most likely tokens, with
the rest as one bucket. At the temperature of the loss most of the probability lies in that bucket, so `top` is smaller
and rougher, its KL a lower bound. Which form a label has, with timestamps or plain, with a prompt or
without, is drawn anew in each epoch, so targets are stored for every form that a draw can give, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from k2d_hf.data.chunk_schema import rows_of
from k2d_hf.data.utterances import as_chunks, names_of
from k2d_hf.distillation.batches.collator import K2DDataCollator, pad_examples
from k2d_hf.distillation.batches.rows import check_windows, reasons_to_leave_out
from k2d_hf.distillation.batches.target_columns import (
    DTYPES,
    KINDS,
    Example,
    columns_of,
    digest_of,
    embedding_digest,
    target_features,
    without_targets,
)
from k2d_hf.distillation.loss.losses import Head, SoftTargets, check_vocabulary
from k2d_hf.distillation.models import decode, encode, load_party, output_embedding
from k2d_hf.distillation.targets.encoder_states import EncoderStates, number_format_of_states
from k2d_hf.distillation.targets.reuse import EarlierTargets, shard_key
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import opened_files, write_file
from k2d_hf.files.cache import scratch_folder
from k2d_hf.files.shards import RecordedFolder
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.models.sources import model_fingerprint
from k2d_hf.models.whisper_tokens import IGNORED
from k2d_hf.terminal.progress import length_of, progress_bar
from k2d_hf.validation.auxiliary import validation_features

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset
    from transformers import WhisperForConditionalGeneration

TOP_TOKENS = 32
SHARD_SIZE = 256  # chunks; some two hours of speech, and 100 MB of hidden states
BLOCK_TOKENS = 128  # positions whose logits are in memory at once


def add_soft_targets(
    chunks: Dataset | IterableDataset,
    teacher: str | Path | WhisperForConditionalGeneration,
    collator: K2DDataCollator,
    *,
    auxiliary: str | Path | WhisperForConditionalGeneration | None = None,
    kind: str = "hidden",
    temperature: float = 2.0,
    k: int = TOP_TOKENS,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    encoder_states_dir: str | Path | None = None,
    shard_size: int = SHARD_SIZE,
    shards_dir: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Store what the teacher says at each supervised token of each chunk, in every form that its label can take.

    Args:
        chunks: what `validate_labels` gave, or labelled utterances with `audio` and `text`; a stream is read once, and
            never held. Those with `keep` false, those whose label is too long, and utterances that cannot be heard or
            are longer than 30 s get nothing.
        teacher: model or checkpoint.
        collator: that of the training to come: it knows the labels and the forms that draws can give.
        auxiliary: model or checkpoint, where the loss has its KL too; its targets are of kind `top`.
        kind: `hidden` for the whole distribution, or `top` for the k most likely tokens. What these leave is one
            bucket, so that the KL becomes that between two coarser distributions, at most the whole.
        temperature: of the loss (T), which targets of kind `top` are bound to.
        k: tokens stored for each position, where the kind is `top`.
        batch_size: chunks in one pass.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: number format of the models; `auto` is float32 on a CPU and float16 on a GPU.
        encoder_states_dir: folder for the teacher's encoder states, kept for training where student and teacher share
            the encoder; nothing is kept if None.
        shard_size: chunks in a shard, which is what a crash can cost.
        shards_dir: folder that keeps each finished shard, so that an interrupted run resumes, and which the result is
            read from; None keeps nothing.
        on_progress: called with the number of chunks done; None shows a bar as `datasets.map` does, and hides it
            likewise.

    Returns:
        The same rows with `teacher_hidden` [tokens, d] float16, or `teacher_top_ids` [tokens, k] int32 and
        `teacher_top_logprobs` [tokens, k] float16, tokens being those of all forms; the auxiliary's likewise;
        `target_forms`, a list of form, tokens, and a digest of its ids; `target_temperature`, null without kind `top`;
        and `target_embedding`, a digest of the teacher's embedding, null without kind `hidden`.

    Raises:
        K2DError: for k or temperature out of range, models that do not fit the collator's processor, or a
            `shards_dir` of other settings.
    """
    with (
        scratch_folder() if shards_dir is None else nullcontext(Path(shards_dir)) as folder,
        progress_bar(on_progress, "Soft targets", length_of(chunks), "chunks") as progress,
    ):
        files, features = write_soft_targets(
            chunks, teacher, collator, auxiliary=auxiliary, kind=kind, temperature=temperature, k=k,
            batch_size=batch_size, device=device, dtype=dtype, encoder_states_dir=encoder_states_dir,
            shard_size=shard_size, place=lambda settings: folder, on_progress=progress,
        )  # fmt: skip
        return opened_files(files, features)


def write_soft_targets(
    chunks: Dataset | IterableDataset,
    teacher: str | Path | WhisperForConditionalGeneration,
    collator: K2DDataCollator,
    *,
    auxiliary: str | Path | WhisperForConditionalGeneration | None,
    kind: str,
    temperature: float,
    k: int,
    batch_size: int,
    device: str,
    dtype: str,
    encoder_states_dir: str | Path | None,
    shard_size: int,
    place: Callable[[Mapping[str, Any]], Path],
    on_progress: Callable[[int], None] | None,
) -> tuple[list[Path], Features]:
    """The same as files, in order, and their columns; those that are there already stay.

    Args:
        place: gives the folder of the files, from all that the targets depend on.
    """
    from datasets import Features

    if kind not in KINDS:
        raise K2DError(f"kind {kind!r}: choose one of {', '.join(KINDS)}")
    if k < 1 or not 0 < temperature < float("inf"):
        raise K2DError(f"k={k}, temperature={temperature}: give at least 1 token and a temperature above 0")
    models = {"teacher": _load("teacher", teacher, collator, device)}
    if auxiliary is not None:
        models["auxiliary"] = _load("auxiliary", auxiliary, collator, device)
    # states are known by the weights as they are on disk, so before these become coarser; they do not with them
    kept = EncoderStates(encoder_states_dir, models["teacher"].model.encoder) if encoder_states_dir else None
    embedding = embedding_digest(output_embedding(models["teacher"])) if kind == "hidden" else None
    model: Any
    for name, model in models.items():
        wanted = _number_format(dtype, model)
        model.model.decoder.to(wanted)
        model.proj_out.to(wanted)
        model.model.encoder.to(number_format_of_states(model.device) if name == "teacher" else wanted)
    kinds = {name: kind if name == "teacher" else "top" for name in models}
    stage = _Targets(models, kinds, collator, k, temperature, kept, embedding, on_progress)
    widths = {name: model.config.d_model if kinds[name] == "hidden" else k for name, model in models.items()}
    plain = without_targets(as_chunks(chunks))
    check_windows(names_of(plain), collator, what="chunks")
    known: Any = plain.features or {**chunk_features(), **validation_features()}
    features = Features({**{name: known[name] for name in names_of(plain)}, **target_features(kinds, widths)})
    settings = {
        "kind": kind, "dtype": dtype,
        "models": {name: model_fingerprint(model) for name, model in models.items()},
        **({"k": k, "temperature": temperature} if "top" in kinds.values() else {}),
        **collator.label_settings(),
    }  # fmt: skip
    shards_dir = place(settings)
    finished = RecordedFolder(shards_dir, settings=settings)
    files: list[Path] = []
    earlier = EarlierTargets(shards_dir, passed_over=files)
    for rows in plain.with_format(None).iter(batch_size=shard_size):
        path = shards_dir / f"{shard_key(rows)}.arrow"
        files.append(path)
        stage.keep_states(rows, batch_size)
        if path.exists():
            stage.on_progress(len(rows["text"]))
            continue
        finished.record()
        write_file({**rows, **_shard(stage, rows, earlier, batch_size)}, features, path)
    return files, features


def _shard(
    stage: _Targets, rows: dict[str, list[Any]], earlier: EarlierTargets, batch_size: int
) -> dict[str, list[Any]]:
    """Target columns of the chunks of a shard; what is there already is not computed again."""
    chunks = list(rows_of(rows))
    targets = [earlier.of(chunk) if stage.wants(chunk) else None for chunk in chunks]
    missing = [index for index, found in enumerate(targets) if found is None]
    if len(missing) < len(chunks):
        stage.on_progress(len(chunks) - len(missing))
    for at in range(0, len(missing), batch_size):
        batch = missing[at : at + batch_size]
        computed = stage([chunks[index] for index in batch])
        for place, index in enumerate(batch):
            targets[index] = {name: values[place] for name, values in computed.items()}
    known = [found for found in targets if found is not None]
    return {name: [found[name] for found in known] for name in known[0]}


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
        kinds: dict[str, str],
        collator: K2DDataCollator,
        k: int,
        temperature: float,
        kept: EncoderStates | None,
        embedding: str | None,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.models = models
        self.kinds = kinds
        self.embedding = embedding
        self.collator = collator
        self.k = k
        self.temperature = temperature
        self.kept = kept
        self.on_progress = on_progress or (lambda count: None)

    def wants(self, chunk: dict[str, Any]) -> bool:
        """Whether a chunk gets targets: if it is kept, and its label is not too long."""
        return reasons_to_leave_out([chunk], self.collator) == [None]

    def keep_states(self, rows: Mapping[str, list[Any]], batch_size: int) -> None:
        """Write the encoder states of all that training may hear of some rows, where they are kept and not there yet.

        Whether the targets of these rows are there already does not matter: training reads both.
        """
        if self.kept is None:
            return
        spans = [span for chunk in rows_of(rows) if self.wants(chunk) for span in self.collator.spans(chunk)]
        missing = [dict(spans[index]) for index in self.kept.missing(spans)]
        teacher = self.models["teacher"]
        self.kept.write_all(
            missing,
            lambda batch: encode(teacher, self.collator.features(batch).to(teacher.device)),
            batch_size=batch_size,
        )

    @torch.no_grad()
    def __call__(self, chunks: list[dict[str, Any]]) -> dict[str, list[Any]]:
        wanted = [index for index, chunk in enumerate(chunks) if self.wants(chunk)]
        forms: dict[int, list[dict[str, Any]]] = {index: [] for index in range(len(chunks))}
        found: dict[str, dict[int, list[Tensor]]] = {}  # by column and chunk, a part a form
        if wanted:
            by_form: dict[tuple[bool, bool], dict[int, Example]] = {}
            for row, index in enumerate(wanted):
                for form, example in self.collator.forms(chunks[index]).items():
                    by_form.setdefault(form, {})[row] = example
            states: dict[bool, dict[str, Tensor]] = {}  # by whether windows are heard to their end
            for (timestamps, prompt), examples in sorted(by_form.items()):  # whatever else is in the batch
                to_its_end = timestamps and self.collator.full_windows
                if to_its_end not in states:
                    spans = [self.collator.span(chunks[index], timestamps=timestamps) for index in wanted]
                    states[to_its_end] = self._encode(spans)
                for together in self._together(examples):
                    for name, targets in self._form(states[to_its_end], together).items():
                        for row, part in zip(together, targets, strict=True):
                            found.setdefault(name, {}).setdefault(wanted[row], []).append(part)
                for row, (inputs, labels) in examples.items():
                    forms[wanted[row]].append(
                        {
                            "timestamps": timestamps,
                            "prompt": prompt,
                            "tokens": sum(label != IGNORED for label in labels),
                            "digest": digest_of(
                                (inputs, labels),
                                full_window=self.collator.fills_window(chunks[wanted[row]], timestamps=timestamps),
                            ),
                        }
                    )
        self.on_progress(len(chunks))
        columns: dict[str, list[Any]] = {
            "target_forms": list(forms.values()),
            "target_temperature": [self.temperature if "top" in self.kinds.values() else None] * len(chunks),
            "target_embedding": [self.embedding] * len(chunks),
        }
        for party, kind in self.kinds.items():
            width = self.models[party].config.d_model if kind == "hidden" else self.k
            for name in columns_of(party, kind):
                nothing = np.zeros((0, width), DTYPES[name.partition("_")[2]])
                parts = [found.get(name, {}).get(index) for index in forms]
                columns[name] = [torch.cat(part).numpy() if part else nothing for part in parts]
        return columns

    def _encode(self, chunks: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Encoder states of each model, [chunks, frames, d]; the teacher's as training reads them, kept or not."""
        states: dict[str, Tensor] = {}
        features: Tensor | None = None
        for name, model in self.models.items():
            if self.kept is not None and name == "teacher":
                states[name] = self.kept.batch(chunks).to(model.device)
                continue
            features = self.collator.features(chunks) if features is None else features
            computed = encode(model, features.to(model.device))
            states[name] = computed.half() if name == "teacher" else computed
        return states

    def _together(self, examples: dict[int, Example]) -> list[dict[int, Example]]:
        """Examples that go through the decoder at once: a CPU gains nothing by several.

        By itself each gives the same numbers to the last bit, whatever else there is to do.
        """
        if self.models["teacher"].device.type != "cpu":
            return [examples]
        return [{row: example} for row, example in examples.items()]

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
            top = top_tokens(Head(hidden, output_embedding(model)), k=self.k, temperature=self.temperature)
            columns |= {f"{name}_top_ids": top.ids, f"{name}_top_logprobs": top.logprobs}
        return {name: values.cpu().split(lengths) for name, values in columns.items()}


def _load(name: str, model: Any, collator: K2DDataCollator, device: str) -> WhisperForConditionalGeneration:
    from k2d_hf.transcription.transcribers import resolve_device

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
