"""Transcription engines behind one small protocol: `transformers`, and `faster-whisper` (extra `fast`).

The teacher uses `transcribe` (sequential long-form decoding with timestamps), the auxiliary `transcribe_chunks`
(from scratch, without timestamps or context). Evaluation uses the first.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.labelling.audio import SAMPLE_RATE
from k2d_hf.labelling.chunking import Segment
from k2d_hf.whisper_tokens import CHUNK_SECONDS, SpecialTokens

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

ENGINES = ("auto", "transformers", "faster-whisper")
FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's own ladder (Radford et al. 2022, section 4.5)
LOGPROB_THRESHOLD = -1.0
NO_SPEECH_THRESHOLD = 0.6
COMPRESSION_RATIO_THRESHOLD = 2.4  # of the text's UTF-8 bytes, as in openai/whisper
TOKEN_COMPRESSION_RATIO_THRESHOLD = 1.35  # the same, of token ids: what transformers' generate measures


@dataclass(frozen=True)
class DecodingOptions:
    """How a model transcribes; the same for every engine."""

    language: str | None = None  # code such as "zh"; None lets the model tell, recording by recording
    task: str = "transcribe"
    beam_size: int = 5
    condition_on_previous_text: bool = True
    temperatures: tuple[float, ...] = FALLBACK_TEMPERATURES
    batch_size: int = 8  # recordings, or chunks, in one pass
    device: str = "auto"
    dtype: str = "auto"  # engine's own: float32 or int8 on a CPU, float16 on a GPU


@dataclass(frozen=True)
class Transcript:
    """What a model heard in one recording: segments in seconds from its start, and the language it was told or took."""

    segments: list[Segment]
    language: str | None


class Transcriber(Protocol):
    """A loaded model that turns audio (float32, mono, 16 kHz, shape [samples]) into text."""

    engine: str
    parameters: int
    options: DecodingOptions

    def transcribe(self, audio: Sequence[np.ndarray]) -> list[Transcript]:
        """Long-form, with timestamps; any length."""
        ...

    def transcribe_chunks(self, audio: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[str]:
        """Chunks of at most 30 s, each from scratch, without timestamps or context."""
        ...


def default_engine() -> str:
    """`faster-whisper` where it is installed, else `transformers`."""
    return "faster-whisper" if importlib.util.find_spec("faster_whisper") else "transformers"


def open_transcriber(
    checkpoint: str | Path, options: DecodingOptions | None = None, *, engine: str = "auto"
) -> Transcriber:
    """Load a local transformers checkpoint into an engine.

    Raises:
        K2DError: for an unknown engine, or `faster-whisper` where it is not installed.
    """
    options = options or DecodingOptions()
    if engine not in ENGINES:
        raise K2DError(f"engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if engine == "auto":
        engine = default_engine()
    if engine == "transformers":
        return TransformersTranscriber.from_checkpoint(checkpoint, options)
    if not importlib.util.find_spec("faster_whisper"):
        raise K2DError("engine faster-whisper is not installed: pip install 'k2d_hf[fast]', or set engine transformers")
    return FasterWhisperTranscriber(checkpoint, options)


def resolve_device(device: str) -> str:
    """`auto` as `cuda` where there is one, else `cpu`; anything else as it is."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TransformersTranscriber:
    """Whisper by transformers' `generate`: batched over recordings, temperature fallback, timestamps."""

    engine = "transformers"

    def __init__(
        self, model: WhisperForConditionalGeneration, processor: WhisperProcessor, options: DecodingOptions
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.options = options
        self.parameters = model.num_parameters()
        self.special = SpecialTokens.of(processor.tokenizer)

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path, options: DecodingOptions) -> TransformersTranscriber:
        """Load weights and processor; float32 on a CPU and float16 elsewhere unless `options.dtype` says otherwise."""
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        device = resolve_device(options.device)
        name = options.dtype if options.dtype != "auto" else ("float32" if device == "cpu" else "float16")
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise K2DError(f"dtype {name!r} is not one of the engine transformers: choose float32, float16 or bfloat16")
        model: Any = WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True)
        return cls(model.to(device), WhisperProcessor.from_pretrained(checkpoint), options)

    def transcribe(self, audio: Sequence[np.ndarray]) -> list[Transcript]:
        """Long-form, with timestamps; `options.batch_size` recordings at once."""
        size = self.options.batch_size
        return [t for at in range(0, len(audio), size) for t in self._transcribe_batch(audio[at : at + size])]

    def _transcribe_batch(self, audio: Sequence[np.ndarray]) -> list[Transcript]:
        features, mask = self._features(audio)
        languages = self._languages(features)
        output = self.model.generate(
            features,
            attention_mask=mask,
            return_timestamps=True,
            return_segments=True,
            num_beams=self.options.beam_size,
            temperature=self.options.temperatures,
            logprob_threshold=LOGPROB_THRESHOLD,
            compression_ratio_threshold=TOKEN_COMPRESSION_RATIO_THRESHOLD,
            # generate mixes up the batch's rows when it skips silence and falls back in one pass
            no_speech_threshold=NO_SPEECH_THRESHOLD if len(audio) == 1 else None,
            condition_on_prev_tokens=self.options.condition_on_previous_text,
            **self._language_arguments(languages),
        )
        return [
            Transcript([self._segment(segment) for segment in segments], language)
            for segments, language in zip(output["segments"], languages, strict=True)
        ]

    def transcribe_chunks(self, audio: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[str]:
        """One pass over all chunks given; `options.language` holds where a chunk has no language of its own."""
        features, _ = self._features(audio)
        languages = [language or self.options.language for language in languages]
        if not all(languages):
            detected = self._languages(features)
            languages = [given or found for given, found in zip(languages, detected, strict=True)]
        ids = self.model.generate(
            features,
            return_timestamps=False,
            num_beams=self.options.beam_size,
            condition_on_prev_tokens=False,
            **self._language_arguments(languages),
        )
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def _features(self, audio: Sequence[np.ndarray]) -> tuple[Any, Any]:
        longest = max(len(samples) for samples in audio)
        batch = self.processor.feature_extractor(
            list(audio),
            sampling_rate=SAMPLE_RATE,
            truncation=False,
            padding="max_length" if longest <= CHUNK_SECONDS * SAMPLE_RATE else "longest",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return batch.input_features.to(self.model.device, self.model.dtype), batch.attention_mask.to(self.model.device)

    def _languages(self, features: Any) -> list[str | None]:
        if not self.special.multilingual:
            return [None] * len(features)
        if self.options.language:
            return [self.options.language] * len(features)
        window = features[..., : self.processor.feature_extractor.nb_max_frames]
        ids = self.model.detect_language(window).tolist()
        return [token.strip("<|>") for token in self.processor.tokenizer.convert_ids_to_tokens(ids)]

    def _language_arguments(self, languages: Sequence[str | None]) -> dict[str, Any]:
        if not self.special.multilingual:
            return {}
        return {"language": list(languages), "task": self.options.task}

    def _segment(self, segment: dict[str, Any]) -> Segment:
        text_ids = [token for token in segment["tokens"].tolist() if token < self.special.end_of_text]
        text = self.processor.tokenizer.decode(text_ids)
        return Segment(round(float(segment["start"]), 2), round(float(segment["end"]), 2), text)


class FasterWhisperTranscriber:
    """Whisper by CTranslate2 through faster-whisper; the checkpoint is converted once and cached."""

    engine = "faster-whisper"

    def __init__(self, checkpoint: str | Path, options: DecodingOptions) -> None:
        import ctranslate2
        from faster_whisper import WhisperModel
        from transformers import WhisperProcessor

        from k2d_hf.checkpoints import count_parameters
        from k2d_hf.checkpoints.conversion import to_ctranslate2

        device = resolve_device(options.device)
        self.options = options
        self.parameters = count_parameters(Path(checkpoint))
        self.processor = WhisperProcessor.from_pretrained(checkpoint)
        self.special = SpecialTokens.of(self.processor.tokenizer)
        ctranslate2.set_random_seed(0)  # sampling happens in the temperature fallback only
        try:
            self.model = WhisperModel(
                str(to_ctranslate2(Path(checkpoint))),
                device=device.split(":")[0],
                device_index=int(device.partition(":")[2] or 0),
                compute_type=options.dtype if options.dtype != "auto" else ("int8" if device == "cpu" else "float16"),
                cpu_threads=available_cores(),
            )
        except ValueError as error:
            raise K2DError(f"dtype {options.dtype!r} with engine faster-whisper on {device}: {error}") from error

    def transcribe(self, audio: Sequence[np.ndarray]) -> list[Transcript]:
        """Long-form, with timestamps; one recording after the other."""
        return [self._transcribe_one(samples) for samples in audio]

    def _transcribe_one(self, samples: np.ndarray) -> Transcript:
        segments, info = self.model.transcribe(
            samples,
            language=self.options.language,
            task=self.options.task,
            beam_size=self.options.beam_size,
            best_of=self.options.beam_size,
            temperature=list(self.options.temperatures),
            condition_on_previous_text=self.options.condition_on_previous_text,
            compression_ratio_threshold=COMPRESSION_RATIO_THRESHOLD,
            log_prob_threshold=LOGPROB_THRESHOLD,
            no_speech_threshold=NO_SPEECH_THRESHOLD,
        )
        language = info.language if self.special.multilingual else None
        return Transcript([Segment(round(s.start, 2), round(s.end, 2), s.text) for s in segments], language)

    def transcribe_chunks(self, audio: Sequence[np.ndarray], languages: Sequence[str | None]) -> list[str]:
        """One pass over all chunks given; `options.language` holds where a chunk has no language of its own."""
        import ctranslate2

        from k2d_hf.whisper_tokens import LabelEncoder

        features = self.processor.feature_extractor(
            list(audio), sampling_rate=SAMPLE_RATE, padding="max_length", return_tensors="np"
        ).input_features
        encoded = self.model.model.encode(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(features, np.float32))
        )
        languages = [language or self.options.language for language in languages]
        if self.special.multilingual and not all(languages):
            detected = [ranked[0][0].strip("<|>") for ranked in self.model.model.detect_language(encoded)]
            languages = [given or found for given, found in zip(languages, detected, strict=True)]
        encoder = LabelEncoder(self.processor.tokenizer, task=self.options.task)
        results = self.model.model.generate(
            encoded,
            [[*encoder.start_ids(language), self.special.no_timestamps] for language in languages],
            beam_size=self.options.beam_size,
        )
        return [
            self.processor.tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True).strip()
            for result in results
        ]
