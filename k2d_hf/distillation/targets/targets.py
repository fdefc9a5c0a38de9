"""Soft targets, written once: the teacher's output at every supervised token (K2D, stage 3, its KL).

With them, training needs no teacher in memory. Two kinds: `hidden`, the teacher's last hidden state, of which the
embedding that student and teacher begin with makes the whole distribution; and `top`, its k most likely tokens, with
the rest as one bucket. At the temperature of the loss most of the probability lies in that bucket, so `top` is smaller
and rougher, its KL a lower bound. Which form a label has, with timestamps or plain, with a prompt or
without, is drawn anew in each epoch, so targets are stored for every form that a draw can give, one after the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_audio import chunk_key
from k2d_hf.data.chunk_schema import rows_of
from k2d_hf.data.utterances import as_chunks, names_of
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.batches.rows import check_windows
from k2d_hf.distillation.batches.target_columns import DESCRIBED, is_target, number_format, without_targets
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.distillation.targets.writer import TargetWriter
from k2d_hf.files.arrow import opened_files, write_file
from k2d_hf.files.cache import scratch_folder
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.keywords import takes
from k2d_hf.files.shards import RecordedFolder
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.terminal.progress import length_of, progress_bar
from k2d_hf.validation.hypotheses import validation_features

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset
    from transformers import WhisperForConditionalGeneration

VERDICT = frozenset(validation_features("segment"))  # columns


@takes(TargetsSettings)
def add_soft_targets(
    chunks: Dataset | IterableDataset,
    teacher: str | Path | WhisperForConditionalGeneration,
    collator: K2DDataCollator,
    *,
    auxiliary: str | Path | WhisperForConditionalGeneration | None = None,
    temperature: float = DistillationSettings.temperature,
    encoder_states_dir: str | Path | None = None,
    shards_dir: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
    settings: TargetsSettings,
) -> Dataset:
    """Store the teacher's output at each supervised token of each chunk, in every form that its label can take.

    Args:
        chunks: what `validate_labels` gave, or labelled utterances with `audio` and `text`; a stream is read once, and
            never held. Those with `keep` false, those whose label is too long, and utterances that cannot be read or
            are longer than 30 s get nothing.
        teacher: model or checkpoint.
        collator: that of the training to come: it knows the labels and the forms that draws can give.
        auxiliary: model or checkpoint, where the loss has its KL too; its targets are of kind `top`.
        temperature: of the loss (T), which targets of kind `top` are bound to.
        encoder_states_dir: folder for the teacher's encoder states, kept for training where student and teacher share
            the encoder; nothing is kept if None.
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
        writer = TargetWriter(
            teacher, collator, settings, auxiliary=auxiliary, temperature=temperature,
            encoder_states_dir=encoder_states_dir, on_progress=progress,
        )  # fmt: skip
        return opened_files(*write_soft_targets(chunks, writer, lambda depends: folder))


def write_soft_targets(
    chunks: Dataset | IterableDataset, writer: TargetWriter, place: Callable[[Mapping[str, Any]], Path]
) -> tuple[list[Path], Features]:
    """The same as files, in order, and their columns; those that are there already stay.

    `place` gives the folder of the files, from all that the targets depend on.
    """
    from datasets import Features

    plain = without_targets(as_chunks(chunks))
    check_windows(names_of(plain), writer.collator, what="chunks")
    known: Any = plain.features or {**chunk_features(names_of(plain)), **validation_features("segment")}
    features = Features({**{name: known[name] for name in names_of(plain)}, **writer.features()})
    depends = writer.depends()
    shards_dir = place(depends)
    finished = RecordedFolder(shards_dir, settings=depends)
    files: list[Path] = []
    reusable = ReusableTargets(shards_dir, passed_over=files)
    for rows in plain.with_format(None).iter(batch_size=writer.settings.shard_size):
        path = shards_dir / f"{shard_key(rows)}.arrow"
        files.append(path)
        if path.exists():
            writer.cache_states(rows_of(rows))  # training may have taken them away since
            writer.on_progress(len(rows["text"]))
            continue
        finished.record()
        write_file({**rows, **_shard(writer, rows, reusable)}, features, path)
    return files, features


def _shard(writer: TargetWriter, rows: dict[str, list[Any]], reusable: ReusableTargets) -> dict[str, list[Any]]:
    """Target columns of the chunks of a shard; what is there already is not computed again."""
    chunks = list(rows_of(rows))
    targets = [reusable.of(chunk) if writer.wants(chunk) else None for chunk in chunks]
    missing = [index for index, found in enumerate(targets) if found is None]
    if len(missing) < len(chunks):
        writer.cache_states(chunk for chunk, found in zip(chunks, targets, strict=True) if found is not None)
        writer.on_progress(len(chunks) - len(missing))
    computed = writer.columns([chunks[index] for index in missing])
    for place, index in enumerate(missing):
        targets[index] = {name: values[place] for name, values in computed.items()}
    return {name: [found[name] for found in targets if found is not None] for name in writer.features()}


class ReusableTargets:
    """The targets of an earlier verdict on the same chunks: for another metric, no model runs again.

    They are in shards of `folder`, written with the same models and settings, and read when the first is asked for. A
    shard is passed over if its recordings have changed since, it cannot be read, or it is taken as it is.
    """

    def __init__(self, folder: Path, *, passed_over: Sequence[Path]) -> None:
        self.folder, self.passed_over = folder, passed_over

    def of(self, chunk: Mapping[str, Any]) -> dict[str, Any] | None:
        """The target columns of a chunk, None where there are none."""
        if not self._places or (found := self._places.get(_identity(chunk))) is None:
            return None
        rows, index = found
        targets = {name: value for name, value in rows[index].items() if is_target(name)}
        numbers = {name: np.asarray(targets[name], number_format(name)) for name in targets.keys() - DESCRIBED}
        return {**targets, **numbers}

    @cached_property
    def _places(self) -> dict[str, tuple[Dataset, int]]:
        import pyarrow
        from datasets import Dataset

        places: dict[str, tuple[Dataset, int]] = {}
        for path in sorted(self.folder.glob("*.arrow")):
            if path in self.passed_over:
                continue
            try:
                rows = Dataset.from_buffer(pyarrow.memory_map(str(path)).read_buffer())
                plain = without_targets(rows)[:]
                if shard_key(plain) != path.stem:  # of recordings as they were then
                    continue
            except (OSError, ValueError, KeyError):
                continue
            has = [bool(forms) for forms in rows["target_forms"]]
            numbers = [name for name in rows.column_names if is_target(name) and name not in DESCRIBED]
            rows = rows.with_format("numpy", columns=numbers, output_all_columns=True)
            for index, chunk in enumerate(rows_of(plain)):
                if has[index]:
                    places[_identity(chunk)] = rows, index
        return places


def shard_key(rows: Mapping[str, list[Any]]) -> str:
    """Short hash of some chunks and of their sound."""
    file_key = cache(content_key)
    digest = hashlib.blake2b(digest_size=16)
    for chunk in rows_of(rows):
        described = {name: value for name, value in chunk.items() if name != "audio"}
        digest.update(json.dumps(described, sort_keys=True, default=str).encode(errors="surrogatepass"))
        digest.update(chunk_key(chunk, file_key=file_key).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _identity(chunk: Mapping[str, Any]) -> str:
    """Short hash of all that decides a chunk's targets: validation's verdict is left out."""
    deciding = {name: value for name, value in chunk.items() if name not in VERDICT and name != "audio"}
    sound = chunk_key(chunk, file_key=str) if chunk.get("audio") is not None else None  # a shard knows its recordings
    text = json.dumps([deciding, sound], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
