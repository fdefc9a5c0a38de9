"""Whisper by transformers' own `generate`: the engine that runs wherever torch does, batched over recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.data.chunking import Segment
from k2d_hf.errors import K2DError
from k2d_hf.files.background import check_cancelled
from k2d_hf.files.resuming import key_of
from k2d_hf.models.checkpoint import DTYPES, open_whisper
from k2d_hf.models.processors import load_processor
from k2d_hf.models.sources import model_fingerprint
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS, MAX_PROMPT_TOKENS, MAX_SAMPLED_TOKENS, LabelEncoder
from k2d_hf.transcription.assistant import load_assistant
from k2d_hf.transcription.confidence import confidences, kept_by_generate
from k2d_hf.transcription.decoding import transformers_arguments
from k2d_hf.transcription.speech import clips_of
from k2d_hf.transcription.transcribers import DecodingOptions, Engine, Runtime, Transcript, resolve_device

if TYPE_CHECKING:
    import numpy as np
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

_WINDOW = round(CHUNK_SECONDS * SAMPLE_RATE)  # samples


class TransformersTranscriber:
    """A `Transcriber` around a Whisper that transformers loaded; it is put into evaluation mode.

    Raises:
        K2DError: if the model does not know `options.language`.
    """

    engine = "transformers"
    calls_at_once = 1  # a batch uses all cores, or the whole GPU

    def __init__(
        self, model: WhisperForConditionalGeneration, processor: WhisperProcessor, options: DecodingOptions
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.options = options
        self.parameters = model.num_parameters()
        self.assistant: Any = None  # of `from_checkpoint`
        self.encoder = LabelEncoder(processor.tokenizer, task=options.task)
        if options.language:
            self.encoder.start_ids(options.language)

    @property
    def batches_recordings(self) -> bool:
        """As `_batches`."""
        return _batches(self.options)

    @property
    def fingerprint(self) -> str:
        """Of the model as it is now, its generation config, feature extractor and vocabulary."""
        settings = [self.model.generation_config.to_dict(), self.processor.feature_extractor.to_dict()]
        for one in settings:
            one.pop("transformers_version", None)
        return key_of(model_fingerprint(self.model), settings, self.processor.tokenizer.get_vocab())

    @property
    def runtime(self) -> Runtime:
        """As the model is now: it may be moved."""
        import torch

        threads = torch.get_num_threads() if self.model.device.type == "cpu" else None
        return Runtime(str(self.model.device), str(self.model.dtype).removeprefix("torch."), threads)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, options: DecodingOptions, *, calls_at_once: int = 1
    ) -> TransformersTranscriber:
        """Load weights and processor; the dtype `auto` is float32 on a CPU and float16 elsewhere.

        `calls_at_once` is ignored: this engine batches instead. K2DError for an unknown language, device or dtype.
        """
        import torch

        device = resolve_device(options.device)
        name = options.dtype if options.dtype != "auto" else ("float32" if device == "cpu" else "float16")
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise K2DError(f"dtype {name!r} is not one of the engine transformers: choose float32, float16 or bfloat16")
        model: Any = open_whisper(checkpoint, dtype=dtype)
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise K2DError(f"device {device!r}: {reason}; choose auto, cpu, cuda, cuda:1, ...") from error
        transcriber = cls(model, load_processor(checkpoint), options)
        if options.assistant:
            transcriber.assistant = load_assistant(options.assistant, checkpoint, transcriber.model)
        return transcriber

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Long-form, with timestamps; a transcript depends on no other recording, nor on `options.batch_size`.

        Recordings that share a pass are all of at most 30 s or all longer, as `generate` treats these two differently:
        it decodes the silence that a short one is padded with, too.
        """
        clips = [clips_of(samples, vad=self.options.vad) for samples in audio]
        languages = [language or self.options.language for language in languages or [None] * len(audio)]
        for index, parts in enumerate(clips):
            if len(parts) > 1 and languages[index] is None:  # all have the language of the first
                features, _ = self._features([audio[index][parts[0].start : parts[0].end]])
                languages[index] = self._languages(features, [None])[0]
        given = [
            (audio[index][clip.start : clip.end], languages[index])
            for index, parts in enumerate(clips)
            for clip in parts
        ]
        written = iter(self._transcribe_each(*zip(*given, strict=True)) if given else ())
        transcripts = []
        for language, parts in zip(languages, clips, strict=True):
            of_clips = [(clip, next(written)) for clip in parts]
            segments = [
                replace(one, start=round(start, 2), end=round(end, 2))
                for clip, transcript in of_clips
                for one in transcript.segments
                for start, end in [clip.times(one.start, one.end)]
            ]
            transcripts.append(Transcript(segments, of_clips[0][1].language if of_clips else language))
        return transcripts

    def _transcribe_each(self, audio: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[Transcript]:
        """The transcripts of some audio, batched by like length."""
        size = self.options.batch_size if self.batches_recordings else 1
        by_index: dict[int, Transcript] = {}
        for short in (True, False):
            alike = [index for index, samples in enumerate(audio) if (len(samples) <= _WINDOW) is short]
            for at in range(0, len(alike), size):
                batch = alike[at : at + size]
                transcripts = self._transcribe_batch([audio[one] for one in batch], [languages[one] for one in batch])
                by_index.update(zip(batch, transcripts, strict=True))
        return [by_index[index] for index in range(len(audio))]

    def _transcribe_batch(self, audio: Sequence[np.ndarray], given_languages: Sequence[str | None]) -> list[Transcript]:
        import torch

        features, mask = self._features_of_recordings(audio)
        languages = self._languages(features, given_languages)
        # Sampling (in the fallback) is seeded anew, so that a transcript does not depend on the recordings before.
        with torch.random.fork_rng([self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(0)
            output = self.model.generate(
                features,
                attention_mask=mask,
                return_timestamps=True,
                return_segments=True,
                stopping_criteria=[_check_cancelled],
                **transformers_arguments(self.options),
                **self._language_arguments(languages),
                **self._prompt_arguments(),
                **({"assistant_model": self.assistant} if self.assistant is not None else {}),
            )
        end_id = self.encoder.special.end_of_text
        return [
            Transcript(list(map(self._segment, segments, confidences(segments, self.options, end_id=end_id))), language)
            for segments, language in zip(output["segments"], languages, strict=True)
        ]

    def _prompt_arguments(self) -> dict[str, Any]:
        """The prompt, of which the first window has the whole, or the hot words of each; see `_refusal`."""
        import torch

        text = self.options.prompt or self.options.hotwords
        if not text:
            return {}
        ids = self.encoder.prompt_ids(text, room=MAX_PROMPT_TOKENS)
        return {"prompt_ids": torch.tensor(ids, device=self.model.device), "prompt_condition_type": "first-segment"}

    def transcribe_chunks(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """One pass over all chunks given, without timestamps or context."""
        features, mask = self._features(audio)
        given = languages or [None] * len(audio)
        if self.options.beam_size == 1:
            return self._greedy(features, given)
        ids = self.model.generate(
            features,
            attention_mask=mask,
            return_timestamps=False,
            num_beams=self.options.beam_size,
            no_repeat_ngram_size=self.options.no_repeat_ngram_size,
            condition_on_prev_tokens=False,
            max_length=MAX_SAMPLED_TOKENS,
            stopping_criteria=[_check_cancelled],
            **self._language_arguments(self._languages(features, given)),
        )
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def _greedy(self, features: Any, given_languages: Sequence[str | None]) -> list[str]:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        from k2d_hf.transcription.greedy import decode_greedily

        encoder: Any = self.model.get_encoder()
        # On a CPU a larger batch only leaves the caches sooner.
        parts = features.split(1 if features.device.type == "cpu" else len(features))
        with torch.no_grad():
            states = torch.cat([encoder(part).last_hidden_state for part in parts])
        languages = self._languages(BaseModelOutput(last_hidden_state=states), given_languages)
        ids = decode_greedily(
            self.model,
            states,
            [[*self.encoder.start_ids(language), self.encoder.special.no_timestamps] for language in languages],
            end_id=self.encoder.special.end_of_text,
            max_tokens=MAX_SAMPLED_TOKENS,
            no_repeat_ngram_size=self.options.no_repeat_ngram_size,
        )
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def _features_of_recordings(self, audio: Sequence[np.ndarray]) -> tuple[Any, Any]:
        """Features as each has them alone, [recordings, mel bins, frames of the longest], and which frames are real."""
        import torch

        alone = [self._features([samples])[0][0] for samples in audio]
        frames = [one.shape[-1] for one in alone]
        features = torch.stack([torch.nn.functional.pad(one, (0, max(frames) - one.shape[-1])) for one in alone])
        mask = torch.arange(max(frames), device=features.device) < torch.tensor(frames, device=features.device)[:, None]
        return features, mask.long()

    def _features(self, audio: Sequence[np.ndarray]) -> tuple[Any, Any]:
        longest = max(len(samples) for samples in audio)
        batch = self.processor.feature_extractor(
            list(audio),
            sampling_rate=SAMPLE_RATE,
            truncation=False,
            padding="max_length" if longest <= _WINDOW else "longest",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return batch.input_features.to(self.model.device, self.model.dtype), batch.attention_mask.to(self.model.device)

    def _languages(self, encoded: Any, given: Sequence[str | None]) -> list[str | None]:
        """The language of each row: as given, else that of the options, else as detected in its first 30 s.

        `encoded` is features, or the encoder's output for 30 s.
        """
        if not self.encoder.special.multilingual:
            return [None] * len(given)
        languages = [language or self.options.language for language in given]
        for language in filter(None, set(languages)):
            self.encoder.start_ids(language)
        if not all(languages):
            name = "encoder_outputs" if isinstance(encoded, dict) else "input_features"  # which are cut to 30 s
            detected = self.model.detect_language(**{name: encoded})
            names = self.processor.tokenizer.convert_ids_to_tokens(detected.tolist())
            languages = [known or name.strip("<|>") for known, name in zip(languages, names, strict=True)]
        return languages

    def _language_arguments(self, languages: Sequence[str | None]) -> dict[str, Any]:
        if not self.encoder.special.multilingual:
            return {}
        return {"language": list(languages), "task": self.options.task}

    def _segment(self, segment: dict[str, Any], confidence: dict[str, float] | None) -> Segment:
        text_ids = [token for token in segment["tokens"].tolist() if token < self.encoder.special.end_of_text]
        text = self.processor.tokenizer.decode(text_ids)
        return Segment(round(float(segment["start"]), 2), round(float(segment["end"]), 2), text, confidence)


def _check_cancelled(ids: Any, scores: Any, **kwargs: Any) -> Any:
    """A stopping criterion that stops no row; it raises `Cancelled` where the call is cancelled."""
    import torch

    check_cancelled()
    return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def _batches(options: DecodingOptions) -> bool:
    """Whether several recordings go through `generate` at once: only where nothing of one can reach another.

    Where windows are decoded again or prompted with the text before, `generate` gives rows of a batch each other's
    fallbacks, thresholds, draws and prompts. With an assistant it takes one row.
    """
    return options.windows_stand_alone and options.assistant is None


def _refusal(options: DecodingOptions) -> str | None:
    """What `generate` does not do: with the text before, only the first window has a prompt; without it, each has.

    Guesses are checked for greedy decoding alone; what is sampled with them is drawn otherwise than without.
    """
    if options.assistant and (options.beam_size > 1 or options.samples):
        return (
            "assistant: for greedy decoding alone, as others would write another text with it; set beam_size to 1 and "
            "temperature_fallback to false"
        )
    leave = "write it as {other}, or set engine to faster-whisper"
    if options.hotwords and options.condition_on_previous_text:
        way = leave.format(other="prompt")
        return (
            f"hotwords: the engine transformers gives none beside the text before (condition_on_previous_text); {way}"
        )
    if options.prompt and not options.condition_on_previous_text:
        way = leave.format(other="hotwords")
        return f"prompt: the engine transformers gives one with condition_on_previous_text alone; {way}"
    return None


ENGINE = Engine(
    "transformers",
    TransformersTranscriber.from_checkpoint,
    dtypes=DTYPES,
    devices=("cpu", "cuda", "mps", "xpu", "npu", "hpu", "mlu", "musa"),  # that torch knows and a Whisper may run on
    batches_recordings=_batches,
    confidence=kept_by_generate,
    refusal=_refusal,
    preference=1,
)
