"""The engines by name, found in this folder: each `*_engine.py` declares one, which loads when it is first needed."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.extras import missing
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.processors import load_processor
from k2d_hf.transcription.assistant import check_assistant
from k2d_hf.transcription.prompts import check_length
from k2d_hf.transcription.speech import check_detector
from k2d_hf.transcription.transcribers import DecodingOptions, Engine, Transcriber


def _declared() -> dict[str, Engine]:
    modules = [name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)]) if name.endswith("_engine")]
    engines = [importlib.import_module(f"{__package__}.{name}").ENGINE for name in modules]
    return {engine.name: engine for engine in sorted(engines, key=lambda engine: engine.preference)}


_BY_NAME = _declared()
ENGINES = ("auto", *_BY_NAME)
RAY = "ray"  # as an engine: any of the others, in workers of a Ray cluster
SPREAD_ENGINES = (*ENGINES, RAY, *(f"{RAY}+{engine}" for engine in ENGINES[1:]))


def default_engine() -> str:
    """The engine that `auto` stands for here: `faster-whisper` where it is installed, else `transformers`."""
    return [name for name, engine in _BY_NAME.items() if not missing(engine.module, engine.extra)][-1]


def engine_named(name: str) -> Engine:
    """The engine that `name` stands for, as its module declares it; it raises as `check_engine`."""
    return _BY_NAME[check_engine(name)]


def open_transcriber(
    checkpoint: str | Path, options: DecodingOptions | None = None, *, engine: str = "auto", calls_at_once: int = 1
) -> Transcriber:
    """Load a local transformers checkpoint into an engine, one of `ENGINES`.

    `calls_at_once` is how many calls there will be at the same time, at most. The fast engine on a CPU divides the
    cores among them; with one, all cores work on it.

    Raises:
        K2DError: for an unknown engine, language, device or dtype, `faster-whisper` where it is not installed, a prompt
            that is too long, or what the engine cannot do of the options.
    """
    options = options or DecodingOptions()
    check_options(options, engine, checkpoint)
    return engine_named(engine).open(checkpoint, options, calls_at_once=calls_at_once)


def check_options(options: DecodingOptions, engine: str, checkpoint: str | Path | None = None) -> None:
    """Raise K2DError for what an engine cannot do of the options, a detector that is missing, or too long a prompt.

    Without a `checkpoint` a prompt has no length yet.
    """
    if options.vad:
        check_detector("vad")
    if refusal := engine_named(engine).refusal(options):
        raise K2DError(refusal)
    if checkpoint is not None and (options.prompt or options.hotwords):
        check_length(options, load_processor(checkpoint).tokenizer)
    if checkpoint is not None and options.assistant:
        check_assistant(options.assistant, checkpoint)


def check_engine(engine: str) -> str:
    """The engine that `engine` stands for, wherever it is spread; K2DError for one that is unknown or not installed."""
    if engine not in SPREAD_ENGINES:
        raise K2DError(f"engine {engine!r}: choose one of {', '.join(SPREAD_ENGINES)}")
    if on_ray(engine):
        if hint := missing("ray", "ray"):
            raise K2DError(f"engine ray is not installed: {hint}, or leave ray out of the engine")
        engine = each_workers_engine(engine)
    if engine == "auto":
        return default_engine()
    if hint := missing(_BY_NAME[engine].module, _BY_NAME[engine].extra):
        raise K2DError(f"engine {engine} is not installed: {hint}, or set engine {default_engine()}")
    return engine


def each_workers_engine(engine: str) -> str:
    """The engine that each worker runs: of `ray+transformers` it is `transformers`, of `ray` it is `auto`."""
    return (engine.partition("+")[2] or "auto") if on_ray(engine) else engine


def on_ray(engine: str) -> bool:
    """Whether `engine` spreads the work over a Ray cluster."""
    return engine.partition("+")[0] == RAY


_LOADING = threading.Lock()  # one for all objects, as these are pickled


class OnDemand:
    """A transcriber that loads when it is first needed: a stage whose shards are all finished loads no model.

    It is of a checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.

    Raises:
        K2DError: for an unknown engine, a checkpoint that is nowhere to be found, or options as of `check_options`.
    """

    def __init__(
        self, model: str | Path | Sequence[str] | Transcriber, options: DecodingOptions, *, engine: str = "auto"
    ) -> None:
        self._loaded: Transcriber | None = None
        self._calls_at_once = 1
        if isinstance(model, (str, Path, Sequence)):
            self.options, self.engine = options, check_engine(engine)
            self._checkpoint: Path | None = resolve_checkpoint(model).path
            check_options(options, self.engine, self._checkpoint)
            self._sources: Any = model
        else:
            self.options, self.engine = model.options, model.engine
            self._loaded, self._checkpoint = model, None

    @property
    def batches_recordings(self) -> bool:
        """As of the transcriber; known before it is loaded."""
        if self._loaded is not None:
            return self._loaded.batches_recordings
        return engine_named(self.engine).batches_recordings(self.options)

    @property
    def confidence(self) -> Collection[str]:
        """What its segments carry of confidence; likewise."""
        return engine_named(self.engine).confidence(self.options) if self.options.confidence else ()

    def load(self, *, calls_at_once: int | None = None) -> Transcriber:
        """The transcriber itself, made for that many calls at the same time if it was not loaded before."""
        with _LOADING:
            if self._loaded is None:
                assert self._checkpoint is not None
                self._calls_at_once = calls_at_once or self._calls_at_once
                if not self._checkpoint.exists():  # on another machine, which has it elsewhere
                    self._checkpoint = resolve_checkpoint(self._sources).path
                engine = engine_named(self.engine)
                self._loaded = engine.open(self._checkpoint, self.options, calls_at_once=self._calls_at_once)
            return self._loaded

    def abandon(self, transcriber: Transcriber) -> None:
        """Have the next `load` replace this one, which hangs; a transcriber from outside stays."""
        with _LOADING:
            if self._loaded is transcriber and self._checkpoint is not None:
                self._loaded = None

    def unload(self) -> None:
        """Have the next `load` read the checkpoint again; a transcriber from outside stays."""
        if self._loaded is not None:
            self.abandon(self._loaded)

    def move(self, device: str) -> None:
        """The device of the next `load`; a loaded model stays where it is."""
        if self._loaded is None:
            self.options = replace(self.options, device=device)

    def settings(self) -> dict[str, Any]:
        """What its transcripts depend on: weights (None where unknown), engine and options."""
        same_text = ("assistant", "batch_size", "device")
        options = {name: value for name, value in asdict(self.options).items() if name not in same_text}
        if not self.options.confidence:  # so that what was finished before there was the option stays so
            options.pop("confidence")
        given = getattr(self._loaded, "fingerprint", None)
        model = given if self._checkpoint is None else checkpoint_fingerprint(self._checkpoint)
        return {"model": model, "engine": self.engine, **options}
