"""From chunks to training batches: audio to features, and the choice of timestamps and prompt, anew each epoch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.data.chunk_audio import chunk_name, ends_with_its_sound, read_chunk, recording_name
from k2d_hf.distillation.batches.augmentation import DISTURBED, disturb, mask
from k2d_hf.distillation.batches.target_columns import Example, stored_targets
from k2d_hf.distillation.batches.token_weights import has_weights, label_weights
from k2d_hf.distillation.settings import DECLARED
from k2d_hf.errors import K2DError
from k2d_hf.models.languages import checked_language, language_code
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS, IGNORED, MAX_TARGET_TOKENS, LabelEncoder
from k2d_hf.scoring.phonemes import phones_by

if TYPE_CHECKING:
    from k2d_hf.distillation.arguments import K2DTrainingArguments

# Of a collator: how labels become batches, and which of their forms is drawn when.
_NO_LABEL = (
    *("processor", "encoder", "encoder_states", "_epoch", "chunk_weighting", "seed", "pad_to_multiple_of"),
    *("augment", "augment_copies", "keeps_clean", "token_weighting", "phones"),
)
CLEAN = {"input_features": "clean_features", "encoder_states": "clean_states"}  # of a batch, by what is disturbed
EPOCH = "_epoch"  # column of chunks from a stream, where an epoch may end within a batch


def chunk_weight(distance: float | None, weighting: str) -> float:
    """Weight w_s of a chunk in the loss: 1 if `hard`; if `soft`, falling with the distance from 1 to 0."""
    if weighting == "hard" or distance is None:
        return 1.0
    return min(1.0, max(0.0, 1.0 - distance))


class K2DDataCollator:
    """Chunks to a batch of features and labels (the contract between collator and trainer).

    Whether a label carries timestamps or a prompt is drawn here, not in a `map` whose cache would keep the choice for
    all epochs. The draw depends on seed, epoch, the name of the recording's file and the chunk's start alone, so it is
    the same whatever the batch, the worker, or the folder that the data lie in.

    Args:
        processor: of the student.
        language: of chunks that carry none.
        task: Whisper's task.
        timestamp_probability: how often a label carries timestamps.
        previous_text_probability: how often a chunk with a chunk before it is given that text as prompt.
        full_windows: whether the input, with timestamps, is the full window from the chunk's start.
        chunk_weighting: `hard` or `soft`.
        token_weighting: `none` or `agreement` (`batches.token_weights`).
        espeak_language: by whose phones that compares, as the chunks were validated; None reads as the paper does.
        augment: how often the student's input is disturbed (`batches.augmentation`).
        augment_copies: disturbed copies of a chunk, one an epoch in turn.
        seed: of the draws.
        max_tokens: positions of the decoder.
        pad_to_multiple_of: labels are padded to the longest of the batch, rounded up to a multiple of this.

    Raises:
        K2DError: for an unknown language, or one that espeak-ng does not have, or where that is not installed.
    """

    def __init__(
        self,
        processor: WhisperProcessor,
        *,
        language: str | None = None,
        task: str = "transcribe",
        timestamp_probability: float = 0.5,
        previous_text_probability: float = 0.2,
        full_windows: bool = False,
        chunk_weighting: str = "hard",
        token_weighting: str = "none",
        espeak_language: str | None = None,
        augment: float = 0.0,
        augment_copies: int = 4,
        seed: int = 0,
        max_tokens: int = MAX_TARGET_TOKENS,
        pad_to_multiple_of: int = 1,
    ) -> None:
        self.processor = processor
        self.language = checked_language(language)
        self.task = task
        self.timestamp_probability = timestamp_probability
        self.previous_text_probability = previous_text_probability
        self.full_windows = full_windows
        self.chunk_weighting = chunk_weighting
        self.token_weighting = token_weighting
        self.phones = phones_by(espeak_language)
        self.augment = augment
        self.augment_copies = augment_copies
        self.keeps_clean = False  # set by the trainer where a model in memory takes the clean audio
        self.seed = seed
        self.max_tokens = max_tokens
        self.pad_to_multiple_of = pad_to_multiple_of
        self.encoder_states: Any = None  # an `EncoderStates`, set by the trainer where they are on disk
        self.encoder = LabelEncoder(processor.tokenizer, task=task)
        # in shared memory, so that the workers of a data loader see the trainer's epoch
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch whose draws are made; the trainer sets it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def for_evaluation(self) -> K2DDataCollator:
        """The same collator with draws that never change."""
        collator = copy.copy(self)
        collator._epoch = torch.zeros(1, dtype=torch.int64)
        collator.encoder_states = None
        collator.augment = 0.0
        return collator

    def fits(self, chunk: Mapping[str, Any]) -> bool:
        """Whether the decoder has room for the chunk's label in every form that a draw can give, without prompt."""
        forms = self._possible_timestamps(chunk)
        return all(len(self.label_ids(chunk, timestamps)) - 1 <= self.max_tokens for timestamps in forms)

    def _possible_timestamps(self, chunk: Mapping[str, Any]) -> list[bool]:
        """Whether a label of the chunk has timestamps, as draws can give it; none where nobody knows the times."""
        return [False] if chunk.get("segments") is None else possible_draws(self.timestamp_probability)

    def draws(self, chunk: Mapping[str, Any], *, epoch: int | None = None) -> tuple[bool, bool]:
        """Whether the chunk has timestamps, and whether it has a prompt, in this epoch, or in another."""
        epoch = chunk.get(EPOCH, self.epoch) if epoch is None else epoch
        generator = random.Random(f"{self.seed} {epoch} {recording_name(chunk)} {chunk.get('start')}")
        timestamps = generator.random() < self.timestamp_probability
        prompt = generator.random() < self.previous_text_probability
        return timestamps, prompt

    def example(self, chunk: Mapping[str, Any]) -> Example:
        """Decoder inputs and labels of one chunk in this epoch, of equal length.

        Raises:
            K2DError: if the label alone is longer than the decoder.
        """
        return self._example(chunk, *self.draws(chunk))

    def forms(self, chunk: Mapping[str, Any]) -> dict[tuple[bool, bool], Example]:
        """Decoder inputs and labels of every form that a draw can give, by whether it has timestamps and a prompt.

        Raises:
            K2DError: if the label alone is longer than the decoder.
        """
        examples = {}
        for timestamps in self._possible_timestamps(chunk):
            for prompted in possible_draws(self.previous_text_probability):
                inputs, labels = self._example(chunk, timestamps, prompted)
                has_prompt = inputs[0] == self.encoder.special.start_of_previous  # there may be no text before
                examples[timestamps, has_prompt] = inputs, labels
        return examples

    def _example(self, chunk: Mapping[str, Any], timestamps: bool, prompted: bool) -> Example:
        label = self.label_ids(chunk, timestamps)
        room = self.max_tokens - (len(label) - 1)
        if room < 0:
            lengths = f"its label has {len(label) - 1} tokens, the decoder {self.max_tokens}"
            raise K2DError(f"{chunk_name(chunk)}: {lengths}; leave the chunk out")
        prompt = self.encoder.prompt_ids(chunk.get("previous_text"), room=room) if prompted else []
        return self.encoder.teacher_forcing(label, prompt)

    def label_settings(self) -> dict[str, Any]:
        """All that decides which forms a chunk's label can take, and the input of each, ready for JSON.

        Not how often each is drawn: whatever is made for every form is good for any probability that can give them.
        """
        decides = {name: value for name, value in vars(self).items() if name not in _NO_LABEL}
        drawn = ("timestamp_probability", "previous_text_probability")
        return {**decides, **{name: possible_draws(getattr(self, name)) for name in drawn}}

    def span(self, chunk: Mapping[str, Any], *, timestamps: bool) -> Mapping[str, Any]:
        """The input of this form of the label: the chunk, or the window that begins with it.

        A chunk ends where speech does, and silence fills its window. In long-form decoding a window is full, and mostly
        ends within a segment; a student that never met one transcribes the half of it, where it is to stop before.
        """
        return {**chunk, "duration": CHUNK_SECONDS} if self.fills_window(chunk, timestamps=timestamps) else chunk

    def spans(self, chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All clean inputs that a chunk may give, whatever is drawn."""
        forms = possible_draws(self.timestamp_probability)  # of which a chunk has the first, where both sound alike
        return [self.span(chunk, timestamps=form) for form in (forms if self._continues(chunk) else forms[:1])]

    def inputs(self, chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All inputs that a chunk may give, clean and disturbed; some may be the same."""
        forms = possible_draws(self.timestamp_probability)
        copies = range(self.augment_copies if self.augment else 0)
        return [*self.spans(chunk), *(self._input(chunk, form, copy) for form in forms for copy in copies)]

    def _input(self, chunk: Mapping[str, Any], timestamps: bool, copy: int) -> Mapping[str, Any]:
        """The input of this form of the label in one of the chunk's copies, disturbed or clean."""
        span = self.span(chunk, timestamps=timestamps)
        seed = f"{self.seed} augment {copy} {recording_name(chunk)} {chunk.get('start')}"
        return {**span, DISTURBED: (seed, timestamps)} if random.Random(seed).random() < self.augment else span

    def cut_segment(self, chunk: Mapping[str, Any]) -> float | None:
        """Where in the window that begins with a chunk a segment begins that it cuts off, s; None where none does."""
        next_start = chunk.get("next_start") if self._continues(chunk) else None
        return next_start if next_start is not None and next_start < CHUNK_SECONDS else None

    def fills_window(self, chunk: Mapping[str, Any], *, timestamps: bool) -> bool:
        """Whether the input of this form of the label is longer than the chunk: the window that begins with it."""
        return timestamps and self._continues(chunk)

    def _continues(self, chunk: Mapping[str, Any]) -> bool:
        """Whether its recording continues after a chunk; one that carries its own audio ends there."""
        return self.full_windows and chunk.get("next_start") is not None and not ends_with_its_sound(chunk)

    def features(self, chunks: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Log-mel features of the chunks' audio, [B, mel bins, frames] float32.

        The audio is read from a chunk's column `audio` where it is embedded there, else from its recording.
        """
        return torch.cat([self._features(chunk) for chunk in chunks])

    def _features(self, chunk: Mapping[str, Any]) -> torch.Tensor:
        """Of one chunk, [1, mel bins, frames]: those of a batch differ in their last bits by what else is in it."""
        audio = read_chunk(chunk)
        seed, keep_times = chunk.get(DISTURBED) or (None, True)
        if seed is not None:
            audio = disturb(audio, seed, keep_times=keep_times)
        given = {"sampling_rate": SAMPLE_RATE, "padding": "max_length", "return_tensors": "pt"}
        features = self.processor.feature_extractor(audio, **given).input_features
        return features if seed is None else torch.from_numpy(mask(features[0].numpy(), seed))[None]

    def __call__(self, chunks: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch: `input_features` [B, mel bins, frames] float32, `decoder_input_ids` and `labels` [B, L] int64.

        `chunk_weights` [B] float32 is there if the weighting is soft, `token_weights` [B, L] float32 where tokens
        weigh differently, and where the chunks hold soft targets,
        `teacher_hidden` [B, L, d] float16, or `teacher_top_ids` [B, L, k] int32 and `teacher_top_logprobs` [B, L, k]
        float16; the auxiliary's likewise.
        Where the encoder's states are on disk, `encoder_states` [B, frames / 2, d] float16 takes the place of the
        features, and no audio is read. With `augment`, features and states are disturbed, and the clean ones are there
        too where a model in memory takes them: `clean_features` or `clean_states`.
        """
        examples = [self.example(chunk) for chunk in chunks]
        padding, multiple = self.encoder.special.end_of_text, self.pad_to_multiple_of
        inputs, labels = pad_examples(examples, padding=padding, multiple_of=multiple, most=self.max_tokens)
        batch = {"decoder_input_ids": inputs, "labels": labels}
        if "target_forms" in chunks[0]:
            batch |= self._targets(chunks, examples, labels)
        batch |= self._audio(chunks)
        if self.chunk_weighting != "hard":
            weights = [chunk_weight(chunk.get("distance"), self.chunk_weighting) for chunk in chunks]
            batch["chunk_weights"] = torch.tensor(weights, dtype=torch.float32)
        if any(has_weights(chunk, self.token_weighting) for chunk in chunks):
            batch["token_weights"] = self._token_weights(chunks, labels)
        return batch

    def _token_weights(self, chunks: Sequence[Mapping[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """Weights [B, L] float32 of the tokens of labels [B, L]; 0 where there is none to learn."""
        weights = torch.zeros(labels.shape, dtype=torch.float32)
        for row, chunk in enumerate(chunks):
            supervised = (labels[row] != IGNORED).nonzero()[:, 0]
            timestamps, _ = self.draws(chunk)
            of_label = label_weights(
                chunk,
                self.encoder,
                timestamps=timestamps,
                length=len(supervised) + 1,
                weighting=self.token_weighting,
                phones=self.phones,
            )
            weights[row, supervised] = torch.tensor(of_label[1:])  # the first is no label
        return weights

    def _audio(self, chunks: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Features, or the encoder's states of them, disturbed or clean; and the clean ones where they are wanted."""
        name, read = "input_features", self.features
        if self.encoder_states is not None:
            name, read = "encoder_states", self.encoder_states.batch
        timestamps = [self.draws(chunk)[0] for chunk in chunks]
        clean = [self.span(chunk, timestamps=form) for chunk, form in zip(chunks, timestamps, strict=True)]
        if not self.augment:
            return {name: read(clean)}
        copies = [chunk.get(EPOCH, self.epoch) % self.augment_copies for chunk in chunks]
        audio = {name: read([self._input(*of_chunk) for of_chunk in zip(chunks, timestamps, copies, strict=True)])}
        return {**audio, CLEAN[name]: read(clean)} if self.keeps_clean else audio

    def _targets(
        self, chunks: Sequence[Mapping[str, Any]], examples: Sequence[Example], labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        found = [
            stored_targets(chunk, example, full_window=self.fills_window(chunk, timestamps=self.draws(chunk)[0]))
            for chunk, example in zip(chunks, examples, strict=True)
        ]
        targets = {}
        for name in found[0]:
            values = torch.from_numpy(np.concatenate([part[name] for part in found]))
            targets[name] = values.new_zeros(*labels.shape, values.shape[-1])
            targets[name][labels != IGNORED] = values
        return targets

    def label_ids(self, chunk: Mapping[str, Any], timestamps: bool, encoder: LabelEncoder | None = None) -> list[int]:
        """Ids of a chunk's label in one of its forms, as `encoder` spells it; by default in full."""
        if chunk.get("text") is None:
            raise K2DError(f"{chunk_name(chunk)}: a chunk without text (it has {', '.join(chunk)}): leave it out")
        return (encoder or self.encoder).label_ids(
            chunk["text"],
            chunk.get("segments"),
            language=language_code(chunk.get("language")) or self.language,
            timestamps=timestamps,
            next_start=self.cut_segment(chunk),
        )


def possible_draws(probability: float) -> list[bool]:
    """What a draw with this probability can give."""
    return [outcome for outcome, chance in ((False, 1 - probability), (True, probability)) if chance > 0]


def pad_examples(
    examples: Sequence[Example], *, padding: int, multiple_of: int = 1, most: int = MAX_TARGET_TOKENS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels of several chunks, padded to the longest, [B, L] int64 each.

    L is rounded up to a multiple, but to no more than `most`; inputs are filled up with `padding`, labels with -100.
    """
    longest = max(len(labels) for _, labels in examples)
    length = max(longest, min(-(-longest // multiple_of) * multiple_of, most))
    decoder_input_ids = [[*inputs, *[padding] * (length - len(inputs))] for inputs, _ in examples]
    padded = [[*labels, *[IGNORED] * (length - len(labels))] for _, labels in examples]
    return torch.tensor(decoder_input_ids), torch.tensor(padded)


def default_collator(
    processor: WhisperProcessor, args: K2DTrainingArguments, student: WhisperForConditionalGeneration
) -> K2DDataCollator:
    """The collator that the settings of training ask for: each of its arguments that is one of them."""
    settings = {name: getattr(args, name) for name in DECLARED.keys() & signature(K2DDataCollator).parameters.keys()}
    settings["language"] = language_code(args.language or getattr(student.generation_config, "language", None))
    return K2DDataCollator(
        processor,
        **settings,
        seed=args.draw_seed,
        max_tokens=student.config.max_target_positions,
        pad_to_multiple_of=8 if torch.cuda.is_available() else 1,
    )


class EpochToData(TrainerCallback):
    """Sets the epoch of collator and sampler: what a chunk's label looks like, and the order of chunks, are drawn anew.

    The Trainer and accelerate hand the epoch down through a fixed number of wrappers. In a resumed epoch of several
    processes there is one more, so that the sampler would begin again with the order of epoch 0. `collator_of` gives
    the collator, which a search over settings may replace.
    """

    def __init__(self, collator_of: Callable[[], Any]) -> None:
        self.collator_of = collator_of

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Set the epoch; after a resume `state` knows it."""
        epoch = int(state.epoch or 0)
        collator = self.collator_of()
        if isinstance(collator, K2DDataCollator):
            collator.epoch = epoch
        batches = train_dataloader  # around the sampler of rows lies whatever cuts its order into batches and shares
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler: Any = getattr(batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
