"""Transcription behind one small protocol, by either engine: `transformers`, or `faster-whisper` (extra `fast`).

The teacher uses `transcribe` (sequential long-form decoding with timestamps), the auxiliary `transcribe_chunks`
(from scratch, without timestamps or context). Evaluation uses the first.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from k2d_hf.checkpoints import resolve_checkpoint
from k2d_hf.errors import K2DError
from k2d_hf.extras import install_hint
from k2d_hf.labelling.chunking import Segment
from k2d_hf.languages import checked_language

if TYPE_CHECKING:
    import numpy as np

ENGINES = ("auto", "transformers", "faster-whisper")
RAY = "ray"  # as an engine: any of the others, in workers of a Ray cluster
SPREAD_ENGINES = (*ENGINES, RAY, *(f"{RAY}+{engine}" for engine in ENGINES[1:]))
TASKS = ("transcribe", "translate")
FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's own ladder (Radford et al. 2022, section 4.5)
LOGPROB_THRESHOLD = -1.0  # windows that look worse than these thresholds are decoded again, hotter
NO_SPEECH_THRESHOLD = 0.6


@dataclass(frozen=True)
class DecodingOptions:
    """How a model transcribes; the same for every engine."""

    language: str | None = None  # as a code or a name; None lets the model tell, recording by recording
    task: str = "transcribe"
    beam_size: int = 5
    condition_on_previous_text: bool = True
    temperatures: tuple[float, ...] = FALLBACK_TEMPERATURES
    no_repeat_ngram_size: int = 0  # of chunks: no run of so many tokens comes twice; 0 forbids nothing
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

    @property
    def windows_stand_alone(self) -> bool:
        """Whether each window is decoded once, without sampling, and whatever was written before it."""
        return not self.condition_on_previous_text and len(self.temperatures) == 1 and not self.temperatures[0]


def temperatures(*, fallback: bool) -> tuple[float, ...]:
    """Temperatures at which a window is decoded, one after the other until it looks right; without fallback once."""
    return FALLBACK_TEMPERATURES if fallback else FALLBACK_TEMPERATURES[:1]


@dataclass(frozen=True)
class Runtime:
    """Where a loaded model computes: device, number format, and on a CPU threads; None is not known."""

    device: str | None = None
    dtype: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Transcript:
    """What a model heard in one recording: segments in seconds from its start, and the language it was told or took."""

    segments: list[Segment]
    language: str | None


class Transcriber(Protocol):
    """A loaded model that turns audio (float32, mono, 16 kHz, shape [samples]) into text.

    `languages` are codes such as `zh`, one for each item of `audio`. Where there is none, `options.language` holds,
    and where that is None too, the model tells. A code that the model does not know raises K2DError. One that can say
    where it computes has a `runtime` too, for what an evaluation tells; one that knows its weights has their
    `fingerprint`, without which finished shards cannot tell it from another model.
    """

    @property
    def engine(self) -> str:
        """One of `ENGINES`."""
        ...

    @property
    def batches_recordings(self) -> bool:
        """Whether one call of `transcribe` with several recordings takes less time than a call for each.

        It may never change what is heard in one.
        """
        ...

    @property
    def calls_at_once(self) -> int:
        """How many threads may, and for speed should, call it at the same time."""
        ...

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        ...

    @property
    def options(self) -> DecodingOptions:
        """How it transcribes."""
        ...

    def transcribe(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[Transcript]:
        """Long-form, with timestamps; any length."""
        ...

    def transcribe_chunks(
        self, audio: Sequence[np.ndarray], languages: Sequence[str | None] | None = None
    ) -> list[str]:
        """Chunks of at most 30 s, each from scratch, without timestamps or context, in one pass."""
        ...


def default_engine() -> str:
    """`faster-whisper` where it is installed, else `transformers`."""
    return "faster-whisper" if importlib.util.find_spec("faster_whisper") else "transformers"


def open_transcriber(
    checkpoint: str | Path, options: DecodingOptions | None = None, *, engine: str = "auto", calls_at_once: int = 1
) -> Transcriber:
    """Load a local transformers checkpoint into an engine.

    Args:
        checkpoint: its folder.
        options: how it transcribes.
        engine: one of `ENGINES`.
        calls_at_once: how many calls there will be at the same time, at most. The fast engine on a CPU divides the
            cores among them; with one, all cores work on it.

    Raises:
        K2DError: for an unknown engine, language, device or dtype, or `faster-whisper` where it is not installed.
    """
    transcriber = _transcriber_class(check_engine(engine))
    return transcriber.from_checkpoint(checkpoint, options or DecodingOptions(), calls_at_once=calls_at_once)


def batches_recordings(engine: str, options: DecodingOptions) -> bool:
    """Whether an engine takes several recordings in one pass where it transcribes so.

    faster-whisper never does. transformers' `generate` does, but where windows are decoded again or prompted with the
    text before, rows of a batch get each other's fallbacks, thresholds, draws and prompts; there it is given one.
    """
    return engine == "transformers" and options.windows_stand_alone


def _transcriber_class(engine: str) -> Any:
    if engine == "transformers":
        from k2d_hf.labelling.transformers_engine import TransformersTranscriber

        return TransformersTranscriber
    from k2d_hf.labelling.faster_whisper_engine import FasterWhisperTranscriber

    return FasterWhisperTranscriber


def check_engine(engine: str) -> str:
    """The engine that `engine` stands for, `auto` being the default one; where it is spread does not count.

    Raises:
        K2DError: for an unknown engine, or one that is not installed.
    """
    if engine not in SPREAD_ENGINES:
        raise K2DError(f"engine {engine!r}: choose one of {', '.join(SPREAD_ENGINES)}")
    if on_ray(engine):
        if importlib.util.find_spec("ray") is None:
            raise K2DError(f"engine ray is not installed: {install_hint('ray')}, or leave ray out of the engine")
        engine = each_workers_engine(engine)
    if engine == "faster-whisper" and default_engine() != engine:
        raise K2DError(f"engine faster-whisper is not installed: {install_hint('fast')}, or set engine transformers")
    return default_engine() if engine == "auto" else engine


def each_workers_engine(engine: str) -> str:
    """The engine that each worker runs: of `ray+transformers` it is `transformers`, of `ray` it is `auto`."""
    return (engine.partition("+")[2] or "auto") if on_ray(engine) else engine


def on_ray(engine: str) -> bool:
    """Whether `engine` spreads the work over a Ray cluster."""
    return engine.partition("+")[0] == RAY


_LOADING = threading.Lock()  # not of each object, as these travel to other processes


class OnDemand:
    """A transcriber that loads when it is first needed: a stage whose shards are all finished loads no model.

    Args:
        model: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber`.
        options: how a checkpoint transcribes; a loaded `Transcriber` has its own.
        engine: of a checkpoint.

    Raises:
        K2DError: for an unknown engine, or a checkpoint that is nowhere to be found.
    """

    def __init__(
        self, model: str | Path | Sequence[str] | Transcriber, options: DecodingOptions, *, engine: str = "auto"
    ) -> None:
        self._loaded: Transcriber | None = None
        self._calls_at_once = 1
        if isinstance(model, (str, Path, Sequence)):
            self.options, self.engine = options, check_engine(engine)
            self._checkpoint: Path | None = resolve_checkpoint(model).path
            self._sources: Any = model
        else:
            self.options, self.engine = model.options, model.engine
            self._loaded, self._checkpoint = model, None

    @property
    def batches_recordings(self) -> bool:
        """As of the transcriber; known before it is loaded."""
        return (
            batches_recordings(self.engine, self.options) if self._loaded is None else self._loaded.batches_recordings
        )

    def load(self, *, calls_at_once: int | None = None) -> Transcriber:
        """The transcriber itself, made for that many calls at the same time if it was not loaded before."""
        with _LOADING:
            if self._loaded is None:
                assert self._checkpoint is not None
                self._calls_at_once = calls_at_once or self._calls_at_once
                if not self._checkpoint.exists():  # on another machine, which has it elsewhere
                    self._checkpoint = resolve_checkpoint(self._sources).path
                self._loaded = open_transcriber(
                    self._checkpoint, self.options, engine=self.engine, calls_at_once=self._calls_at_once
                )
            return self._loaded

    def give_up(self, transcriber: Transcriber) -> None:
        """Have the next `load` make a new one in the place of this one, which hangs; one that was given stays."""
        with _LOADING:
            if self._loaded is transcriber and self._checkpoint is not None:
                self._loaded = None

    def settings(self) -> dict[str, Any]:
        """What its transcripts depend on: the weights (as far as they are known), the engine and the options."""
        from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint

        options = {name: value for name, value in asdict(self.options).items() if name not in ("batch_size", "device")}
        model: str | None
        if self._checkpoint is not None:
            model = checkpoint_fingerprint(self._checkpoint)
        else:
            model = getattr(self._loaded, "fingerprint", None)
        return {"model": model, "engine": self.engine, **options}


def resolve_device(device: str) -> str:
    """`auto` as `cuda` where there is one, else `cpu`; anything else as it is."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
