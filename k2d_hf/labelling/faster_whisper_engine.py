"""Whisper by CTranslate2 through faster-whisper (extra `fast`): the fast engine. Conversions are cached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from k2d_hf.checkpoints import count_parameters
from k2d_hf.errors import K2DError
from k2d_hf.labelling.audio import SAMPLE_RATE
from k2d_hf.labelling.chunking import Segment
from k2d_hf.labelling.transcribers import (
    LOGPROB_THRESHOLD,
    NO_SPEECH_THRESHOLD,
    DecodingOptions,
    Transcript,
    resolve_device,
)
from k2d_hf.whisper_tokens import LabelEncoder

COMPRESSION_RATIO_THRESHOLD = 2.4  # of the text's UTF-8 bytes, as in openai/whisper


class FasterWhisperTranscriber:
    """A `Transcriber` that runs a local transformers checkpoint; int8 on a CPU, float16 on a GPU unless told otherwise.

    Raises:
        K2DError: for an unknown language, device or dtype.
    """

    engine = "faster-whisper"

    def __init__(self, checkpoint: str | Path, options: DecodingOptions) -> None:
        import ctranslate2
        from faster_whisper import WhisperModel
        from transformers import WhisperProcessor

        from k2d_hf.checkpoints.conversion import to_ctranslate2

        device = resolve_device(options.device)
        self.options = options
        self.parameters = count_parameters(Path(checkpoint))
        self.processor = WhisperProcessor.from_pretrained(checkpoint)
        self.encoder = LabelEncoder(self.processor.tokenizer, task=options.task)
        if options.language:
            self.encoder.start_ids(options.language)
        ctranslate2.set_random_seed(0)  # sampling happens in the temperature fallback only
        converted = to_ctranslate2(Path(checkpoint))
        try:
            self.model = WhisperModel(
                str(converted),
                device=device.split(":")[0],
                device_index=int(device.partition(":")[2] or 0),
                compute_type=options.dtype if options.dtype != "auto" else ("int8" if device == "cpu" else "float16"),
                cpu_threads=available_cores(),
            )
        except (ValueError, RuntimeError) as error:
            raise K2DError(
                f"device {device!r} with dtype {options.dtype!r} in engine faster-whisper: {error}; "
                "auto is safe for both"
            ) from error

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Long-form, with timestamps; one recording after the other."""
        languages = languages or [None] * len(audio)
        return [self._transcribe_one(samples, language) for samples, language in zip(audio, languages, strict=True)]

    def _transcribe_one(self, samples: np.ndarray, language: str | None) -> Transcript:
        language = language or self.options.language
        if language:
            self.encoder.start_ids(language)
        segments, info = self.model.transcribe(
            samples,
            language=language,
            task=self.options.task,
            beam_size=self.options.beam_size,
            best_of=self.options.beam_size,
            temperature=list(self.options.temperatures),
            condition_on_previous_text=self.options.condition_on_previous_text,
            compression_ratio_threshold=COMPRESSION_RATIO_THRESHOLD,
            log_prob_threshold=LOGPROB_THRESHOLD,
            no_speech_threshold=NO_SPEECH_THRESHOLD,
        )
        heard = [Segment(round(s.start, 2), round(s.end, 2), s.text) for s in segments]
        return Transcript(heard, info.language if self.encoder.special.multilingual else None)

    def transcribe_chunks(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """One pass over all chunks given, without timestamps or context."""
        import ctranslate2

        features = self.processor.feature_extractor(
            list(audio), sampling_rate=SAMPLE_RATE, padding="max_length", return_tensors="np"
        ).input_features
        whisper: Any = self.model.model
        encoded = whisper.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(features, np.float32)))
        languages = [language or self.options.language for language in languages or [None] * len(audio)]
        if self.encoder.special.multilingual and not all(languages):
            detected = [ranked[0][0].strip("<|>") for ranked in whisper.detect_language(encoded)]
            languages = [given or found for given, found in zip(languages, detected, strict=True)]
        results = whisper.generate(
            encoded,
            [[*self.encoder.start_ids(language), self.encoder.special.no_timestamps] for language in languages],
            beam_size=self.options.beam_size,
        )
        return [
            self.processor.tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True).strip()
            for result in results
        ]


def available_cores() -> int:
    """Cores that this process may use: as many as OMP_NUM_THREADS says, where it is set, else all it is given."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
