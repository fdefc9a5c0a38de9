"""The protocol of an engine, and how it transcribes.

The teacher uses `transcribe` (sequential long-form decoding with timestamps), the auxiliary `transcribe_chunks`
(from scratch, without timestamps or context). Evaluation uses the first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from k2d_hf.data.chunking import Segment
from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote
from k2d_hf.models.languages import checked_language
from k2d_hf.models.whisper_tokens import TASKS, strip_special

if TYPE_CHECKING:
    import numpy as np

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's own ladder (Radford et al. 2022, section 4.5)
LOGPROB_THRESHOLD = -1.0  # windows beyond these thresholds are decoded again, hotter
NO_SPEECH_THRESHOLD = 0.6
# What an engine may measure of the window that a segment was decoded in: minus the mean log-probability of its tokens
# (nats), the mean entropy of the distributions that its text was chosen from (nats), and the probability of
# `<|nospeech|>` where it begins.
UNCERTAINTY, ENTROPY, NO_SPEECH_PROBABILITY = "uncertainty", "entropy", "no_speech_probability"


@dataclass(frozen=True)
class DecodingOptions:
    """How a model transcribes; the same for every engine."""

    language: str | None = None  # code or name; None is the model's guess for each recording
    task: str = "transcribe"
    beam_size: int = 5
    condition_on_previous_text: bool = True
    temperatures: tuple[float, ...] = FALLBACK_TEMPERATURES
    no_repeat_ngram_size: int = 0  # of chunks: no run of so many tokens is repeated; 0 is no limit
    vad: bool = False  # of recordings: whether long pauses are left out
    prompt: str | None = None  # of recordings: text before the first window
    hotwords: str | None = None  # of recordings: names and terms before every window
    assistant: str | None = None  # of recordings: the student (path or Hub id) whose guesses the model checks
    confidence: bool = False  # of recordings: whether segments carry what the engine measured
    batch_size: int = 8  # recordings, or chunks, in one pass
    device: str = "auto"
    dtype: str = "auto"  # engine's own: float32 or int8 on a CPU, float16 on a GPU

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", checked_language(self.language))
        for name in ("beam_size", "batch_size"):
            if getattr(self, name) < 1:
                raise K2DError(f"{name} {getattr(self, name)}: at least 1")
        if self.no_repeat_ngram_size < 0:
            raise K2DError(f"no_repeat_ngram_size {self.no_repeat_ngram_size}: at least 0, which forbids nothing")
        if self.task not in TASKS:
            raise K2DError(f"task {self.task!r}: choose one of {', '.join(TASKS)}")
        if not self.temperatures:
            raise K2DError("temperatures: give at least one, 0.0 for no sampling")
        for name in ("prompt", "hotwords"):
            text = getattr(self, name) or ""
            if not isinstance(text, str):
                raise K2DError(
                    f"{name}: {quote(text)} is not text; write it in one line, with blanks or commas between"
                )
            text = text.strip()
            if strip_special(text) != text:
                raise K2DError(f"{name}: it has a special token, {quote(text)}; write plain text")
            object.__setattr__(self, name, text or None)

    @property
    def windows_stand_alone(self) -> bool:
        """Whether each window is decoded once, without sampling, and whatever was written before it."""
        return not (self.condition_on_previous_text or self.samples)

    @property
    def samples(self) -> bool:
        """Whether windows that look wrong are decoded again, by sampling."""
        return len(self.temperatures) > 1 or bool(self.temperatures[0])


def temperatures(*, fallback: bool) -> tuple[float, ...]:
    """The temperatures at which a window is decoded until it passes the thresholds; one without fallback."""
    return FALLBACK_TEMPERATURES if fallback else FALLBACK_TEMPERATURES[:1]


@dataclass(frozen=True)
class Runtime:
    """Where a loaded model computes: device, number format, and on a CPU threads; None is unknown."""

    device: str | None = None
    dtype: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Word:
    """A word as an engine times it: `start` and `end` in seconds, `text` with the space before it."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """Of one recording: segments in seconds from its start, and its language, as given or detected."""

    segments: list[Segment]
    language: str | None
    words: list[list[Word]] | None = None  # of each segment, where they were asked for


class Transcriber(Protocol):
    """A loaded model that turns audio (float32, mono, 16 kHz, shape [samples]) into text.

    `languages` are codes such as `zh`, one for each item of `audio`; for None `options.language` holds, and where that
    is None too, the model detects it. A code that the model does not have raises K2DError. Optional attributes are
    `runtime` (a `Runtime`, for the results of an evaluation) and `fingerprint` (of the weights; without it finished
    shards of two models with the same options are taken for each other's).
    """

    @property
    def engine(self) -> str:
        """One of `engines.ENGINES`."""

    @property
    def batches_recordings(self) -> bool:
        """Whether one call of `transcribe` with several recordings is faster; no transcript depends on the others."""

    @property
    def calls_at_once(self) -> int:
        """How many threads may, and for speed should, call it at the same time."""

    @property
    def parameters(self) -> int:
        """Parameters of the model."""

    @property
    def options(self) -> DecodingOptions:
        """How it transcribes."""

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Long-form, with timestamps; recordings of any length."""

    def transcribe_chunks(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """Chunks of at most 30 s, each from scratch, without timestamps or context, in one pass."""


@runtime_checkable
class OneByOne(Protocol):
    """A `Transcriber` that takes recordings one after the other, and shows segments as they come."""

    def transcribe_one(
        self,
        audio: np.ndarray,
        language: str | None = None,
        *,
        word_times: bool = False,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Transcript:
        """As `transcribe`, of one recording; `on_segment` is called with each segment when it is decoded."""


def devices_of_torch(kind: str) -> int:
    """How many devices of a kind, such as `cuda`, torch has on this machine."""
    import torch

    backend: Any = torch.get_device_module(kind) if hasattr(torch, kind) else None
    if backend is None or not getattr(backend, "is_available", bool)():
        return 0
    return backend.device_count()


@dataclass(frozen=True)
class Engine:
    """What an engine's module declares in `ENGINE`; choices, checks, plans and help follow from it."""

    name: str  # in recipes and on the command line
    open: Callable[..., Any]  # (checkpoint, options, calls_at_once=N) loads a local checkpoint, as `open_transcriber`
    dtypes: Sequence[str]  # number formats beside `auto`
    devices: Sequence[str]  # kinds of device beside `auto`
    batches_recordings: Callable[[DecodingOptions], bool] = lambda options: False  # as of the `Transcriber`
    device_count: Callable[[str], int] = devices_of_torch  # of a kind that is not `cpu`, on this machine
    supported_dtypes: Callable[[str, int], Collection[str]] | None = None  # of a device here by kind, index; None: all
    refusal: Callable[[DecodingOptions], str | None] = lambda options: None  # what of them it cannot do, in one line
    confidence: Callable[[DecodingOptions], Collection[str]] = lambda options: ()  # what it measures of segments
    word_times: bool = False  # whether it times words, as `OneByOne` asks for them
    module: str | None = None  # what must be importable
    extra: str | None = None  # of this package, which installs it
    preference: int = 0  # `auto` is the installed engine with the highest


def resolve_device(device: str) -> str:
    """`auto` as `cuda` where there is one, else `cpu`; anything else as it is."""
    if device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
