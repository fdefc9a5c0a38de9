"""Whisper by CTranslate2 through faster-whisper (extra `fast`): the fast engine. Conversions are cached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.data.chunking import Segment
from k2d_hf.errors import K2DError
from k2d_hf.files.background import check_cancelled
from k2d_hf.files.processes import available_cores
from k2d_hf.models import count_parameters
from k2d_hf.models.exports.ctranslate2_format import FORMAT
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.processors import load_processor
from k2d_hf.models.whisper_tokens import LabelEncoder
from k2d_hf.transcription.decoding import faster_whisper_arguments
from k2d_hf.transcription.prompts import sharing_room
from k2d_hf.transcription.speech import Times, clips_of
from k2d_hf.transcription.transcribers import (
    ENTROPY,
    NO_SPEECH_PROBABILITY,
    UNCERTAINTY,
    DecodingOptions,
    Engine,
    Runtime,
    Transcript,
    Word,
    resolve_device,
)

_LOADING = threading.Lock()
THREADS_OF_A_WORKER = 4  # where there are cores for several workers: more gain little, fewer take more memory


class FasterWhisperTranscriber:
    """A `Transcriber` of a local transformers checkpoint; `auto` is int8 on a CPU and float16 on a GPU.

    On a CPU, up to `calls_at_once` calls at the same time share the cores, and one copy of the weights. The windows of
    one recording come one after the other and fill few cores; several recordings fill them all. The transcript of
    a recording depends on no other.

    Raises:
        K2DError: for an unknown language, device or dtype.
    """

    engine = "faster-whisper"
    batches_recordings = False

    def __init__(self, checkpoint: str | Path, options: DecodingOptions, *, calls_at_once: int = 1) -> None:
        import ctranslate2
        from faster_whisper import WhisperModel

        # torch takes seconds to load, and is not needed to know that there is no GPU.
        no_gpu = options.device == "auto" and not _device_count("cuda")
        device = "cpu" if no_gpu else resolve_device(options.device)
        self.options = options
        self.parameters = count_parameters(Path(checkpoint))
        self.fingerprint = checkpoint_fingerprint(checkpoint)
        self._checkpoint = checkpoint
        self._known_processor: Any = None
        ctranslate2.set_random_seed(0)  # of threads that come after this
        converted = FORMAT.cached(checkpoint)
        self.calls_at_once, threads = share_cores(available_cores(), calls_at_once if device == "cpu" else 1)
        where: dict[str, Any] = {
            "device": device.split(":")[0],
            "device_index": int(device.partition(":")[2] or 0),
            "compute_type": options.dtype if options.dtype != "auto" else ("int8" if device == "cpu" else "float16"),
        }
        workers = self.calls_at_once
        try:
            self.model = _loaded(WhisperModel, str(converted), cpu_threads=threads, num_workers=workers, **where)
        except (ValueError, RuntimeError) as error:
            raise K2DError(
                f"device {device!r} with dtype {options.dtype!r} in engine faster-whisper: {error}; "
                "auto is safe for both"
            ) from error
        self.encoder = LabelEncoder(_Tokenizer(self.model.hf_tokenizer), task=options.task)
        if options.language:
            self.encoder.start_ids(options.language)
        self.runtime = Runtime(device, self.model.model.compute_type, threads if device == "cpu" else None)
        sampler = partial(_loaded, ctranslate2.models.Whisper, str(converted), intra_threads=threads, **where)
        self.model.model = _Reproducible(self.model.model, sampler)
        self._window = threading.local()  # of each thread, the one that it decoded last
        if ENTROPY in _confidence_of(options):
            self.model.model.text_ends_at = self.encoder.special.end_of_text
            self.model.generate_with_fallback = self._noting_entropy(self.model.generate_with_fallback)
        if options.hotwords:
            hotword_tokens = len(self.encoder.text_ids(f" {options.hotwords}"))
            self.model.get_prompt = sharing_room(self.model.get_prompt, hotword_tokens)

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Long-form, with timestamps; one recording after the other."""
        return [self.transcribe_one(*one) for one in zip(audio, languages or [None] * len(audio), strict=True)]

    def transcribe_one(
        self,
        audio: np.ndarray,
        language: str | None = None,
        *,
        word_times: bool = False,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Transcript:
        """As `OneByOne` has it; word times come from the alignment heads."""
        if language := language or self.options.language:
            self.encoder.start_ids(language)
        arguments = faster_whisper_arguments(self.options) | ({"word_timestamps": True} if word_times else {})
        segments: list[Segment] = []
        words: list[list[Word]] = []
        with self.model.model.one_recording():
            for clip in clips_of(audio, vad=self.options.vad):
                found, info = self.model.transcribe(audio[clip.start : clip.end], language=language, **arguments)
                language = info.language  # of what follows, too
                for one in found:  # window by window, each decoded when its first segment is asked for
                    confidence = self._confidence(one) if self.options.confidence else None
                    segments.append(Segment(*_rounded(clip.times(one.start, one.end)), one.text, confidence))
                    words.append([Word(*_rounded(clip.times(w.start, w.end)), w.word) for w in one.words or ()])
                    if on_segment is not None:
                        on_segment(segments[-1])
        spoken = language if self.encoder.special.multilingual else None
        return Transcript(segments, spoken, words if word_times else None)

    def _noting_entropy(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        """The decoding of a window, which notes the entropy of what was taken of several attempts at it."""

        def decoded(*arguments: Any, **options: Any) -> Any:
            result = decode(*arguments, **options)
            self._window.entropy = result[0].entropy
            return result

        return decoded

    def _confidence(self, segment: Any) -> dict[str, float]:
        measured = {UNCERTAINTY: -segment.avg_logprob, NO_SPEECH_PROBABILITY: segment.no_speech_prob}
        entropy = getattr(self._window, "entropy", None)
        return measured if entropy is None else {**measured, ENTROPY: entropy}

    def transcribe_chunks(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """One pass over all chunks given, without timestamps or context."""
        processor = self._processor()
        features = processor.feature_extractor(
            list(audio), sampling_rate=SAMPLE_RATE, padding="max_length", return_tensors="np"
        ).input_features
        whisper: Any = self.model.model
        if whisper.device == "cpu":  # where a larger batch only leaves the caches sooner
            states = [np.asarray(whisper.encode(_storage(features[at : at + 1]))) for at in range(len(features))]
            encoded = _storage(np.concatenate(states))
        else:
            encoded = whisper.encode(_storage(features))
        languages = [language or self.options.language for language in languages or [None] * len(audio)]
        if self.encoder.special.multilingual and not all(languages):
            detected = [ranked[0][0].strip("<|>") for ranked in whisper.detect_language(encoded)]
            languages = [given or found for given, found in zip(languages, detected, strict=True)]
        results = whisper.generate(
            encoded,
            [[*self.encoder.start_ids(language), self.encoder.special.no_timestamps] for language in languages],
            beam_size=self.options.beam_size,
            no_repeat_ngram_size=self.options.no_repeat_ngram_size,
        )
        ids = [result.sequences_ids[0] for result in results]
        return [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]

    def _processor(self) -> Any:
        """That of transformers, which takes seconds to load and is of chunks alone."""
        with _LOADING:  # by whichever thread comes first
            if self._known_processor is None:
                self._known_processor = load_processor(self._checkpoint)
            return self._known_processor


class _Tokenizer:
    """What `LabelEncoder` asks of a tokenizer of transformers, by the one that faster-whisper has read."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.convert_tokens_to_ids = tokenizer.token_to_id
        self.convert_ids_to_tokens = tokenizer.id_to_token

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text."""
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids


def share_cores(cores: int, calls: int) -> tuple[int, int]:
    """Workers for up to `calls` calls at the same time, and threads of each: together no more than the cores.

    A worker has one thread up to four cores, and more from there on, up to `THREADS_OF_A_WORKER`, for a worker takes
    memory beside the weights that all share. Fewer calls than that divide all cores among them.
    """
    threads = min(THREADS_OF_A_WORKER, -(-cores // 4))
    workers = max(1, min(calls, cores // threads))
    return workers, cores // workers


class _Reproducible:
    """A CTranslate2 model whose sampling in a recording depends on no other, and which can be cancelled.

    CTranslate2 has a random generator for each of its threads, seeded when the thread begins, and a thread for each
    worker of a model: what is sampled depends on what that worker sampled before. So what is sampled in a recording
    (windows that Whisper decodes again, hotter) comes from a model that has sampled nothing yet: of the first recording
    from the one at hand, if that has one worker, then from one that is loaded when it is first needed and gone with the
    recording. The weights come from the disk's cache: a fraction of a second for each hour or so of speech.

    Each use checks for cancellation: a recording takes minutes, each call of the model a second or so.
    """

    def __init__(self, model: Any, load_sampler: Callable[[], Any]) -> None:
        self._model = model
        self._load_sampler = load_sampler
        self._never_sampled = model.num_workers == 1
        self.text_ends_at: int | None = None  # the first token that is no text, where the entropy of text is wanted
        self._of_thread = threading.local()

    def __getattr__(self, name: str) -> Any:
        check_cancelled()
        return getattr(self._model, name)

    @contextmanager
    def one_recording(self) -> Iterator[None]:
        """One sampler for all that this thread samples within the `with`."""
        try:
            yield
        finally:
            self._of_thread.sampler = None

    def generate(self, *arguments: Any, **options: Any) -> Any:
        """As the model's own."""
        check_cancelled()
        model = self._model
        if "sampling_temperature" in options:
            if getattr(self._of_thread, "sampler", None) is None:
                self._of_thread.sampler = self._model if self._never_sampled else self._load_sampler()
                self._never_sampled = False
            model = self._of_thread.sampler
        if self.text_ends_at is None:
            return model.generate(*arguments, **options)
        results = model.generate(*arguments, **options, return_logits_vocab=True)
        return [_measured(result, self.text_ends_at) for result in results]


@dataclass(frozen=True)
class _Measured:
    """A result of CTranslate2 without its logits, which take 0.2 MB a token, and with what is wanted of them."""

    sequences_ids: list[list[int]]
    scores: list[float]
    no_speech_prob: float
    entropy: float | None  # None of a window without text


def _measured(result: Any, text_ends_at: int) -> _Measured:
    """A result with the mean entropy of the distributions that its text was chosen from, nats.

    The logits are those of the model, whatever the temperature at which a token was drawn of them, with the lowest
    number where a token was not allowed. CTranslate2 has none of `<|endoftext|>`, and none of beams.
    """
    steps = zip(result.sequences_ids[0], result.logits[0], strict=False)
    entropies = [_entropy(logits) for token, logits in steps if token < text_ends_at]
    mean = float(np.mean(entropies)) if entropies else None
    return _Measured(result.sequences_ids, result.scores, result.no_speech_prob, mean)


def _entropy(logits: Any) -> float:
    """Of one distribution, nats, from logits [vocabulary]."""
    import ctranslate2

    here = logits.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
    values = np.array(here, dtype=np.float32)
    values -= values.max()
    weights = np.exp(values)
    total = weights.sum(dtype=np.float64)
    return float(np.log(total) - np.dot(weights, np.maximum(values, -1e4)) / total)


def _rounded(times: Times) -> Times:
    return round(float(times[0]), 2), round(float(times[1]), 2)


def _loaded(kind: Callable[..., Any], path: str, **options: Any) -> Any:
    # In a thread that ends: CTranslate2 sets the number of threads of the one that loads a model, torch's too.
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(partial(kind, path, **options)).result()


def _storage(values: np.ndarray) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(values, np.float32))


def _device_count(kind: str) -> int:
    import ctranslate2

    return ctranslate2.get_cuda_device_count() if kind == "cuda" else 0


def _supported_dtypes(device: str, index: int) -> set[str]:
    import ctranslate2

    return ctranslate2.get_supported_compute_types(device, index)


def _confidence_of(options: DecodingOptions) -> tuple[str, ...]:
    """What it measures: CTranslate2 keeps the distributions of one beam alone."""
    if not options.confidence:
        return ()
    one_beam = (ENTROPY,) if options.beam_size == 1 else ()
    return (UNCERTAINTY, *one_beam, NO_SPEECH_PROBABILITY)


def _refusal(options: DecodingOptions) -> str | None:
    if options.assistant:
        return (
            "assistant: the engine faster-whisper takes none; set engine to transformers, beam_size to 1 and "
            "temperature_fallback to false"
        )
    return None


ENGINE = Engine(
    "faster-whisper",
    FasterWhisperTranscriber,
    dtypes=FORMAT.quantizations,
    devices=("cpu", "cuda"),
    device_count=_device_count,
    supported_dtypes=_supported_dtypes,
    refusal=_refusal,
    confidence=_confidence_of,
    word_times=True,
    module="faster_whisper",
    extra="fast",
    preference=2,
)
