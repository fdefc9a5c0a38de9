"""Long-form evaluation: error rates, loops and speed of one model on recordings with references (K2D, section 4)."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, Reading, read_recording
from k2d_hf.audio.selection import warnings_of
from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.data.recording_rows import part_fields, selection_in, span_of
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.long_form import check_measurable, nothing_to_measure, recording_names
from k2d_hf.evaluation.sets import EvaluationSet
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.evaluation.timing import inverse, new_measurement, transcribe_in_turns
from k2d_hf.evaluation.ways import error_figures, rates_of_normaliser
from k2d_hf.files.keywords import takes
from k2d_hf.labelling.hypotheses import UNKNOWN_LANGUAGE
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.languages import is_language, language_of_generation, language_of_row
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS
from k2d_hf.scoring.normalisers import MIXED, check_normaliser
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.terminal.progress import progress_bar
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions, Runtime, Transcriber, Transcript
from k2d_hf.transcription.transformers_engine import TransformersTranscriber
from k2d_hf.validation.distance import is_looping

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What one model did on a set of recordings. Rates are shares of the reference's tokens, 0.2 for 20%."""

    model: str
    mer: float
    substitutions: int
    deletions: int
    insertions: int
    reference_length: int
    zh_cer: float | None  # None where the references hold no Han character
    en_wer: float | None  # None where they hold no other word; both are None of another pair of languages
    looping_outputs: int  # windows of 30 s whose text loops
    recordings: int
    audio_seconds: float
    rtf: float  # seconds of work a second of audio, mean over the runs
    rtf_runs: list[float]
    parameters: int
    engine: str
    language: str | None
    beam_size: int
    condition_on_previous_text: bool
    temperature_fallback: bool
    device: str | None = None  # where it was computed, in which number format, and on a CPU with how many threads
    dtype: str | None = None
    threads: int | None = None
    measurement: dict[str, Any] | None = None  # of the real-time factor, which those of the same compare with
    insertions_by_script: dict[str, int] = field(default_factory=dict)  # tokens; and marks, where they loop
    switching: dict[str, Any] | None = None  # of `switching_figures`; None where no reference changes script
    normaliser: str = MIXED  # of the set
    wer: float | None = None  # over the words that this normaliser leaves; None of mixed tokens, which have `mer` alone
    word_errors: dict[str, int] | None = None  # the counts of `wer`
    parts: dict[str, float] = field(default_factory=dict)  # of another pair, by title: `hi WER`, `Latin WER`
    skipped: list[dict[str, Any]] = field(default_factory=list)
    transcripts: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio a second of work, the inverse of `rtf`; None where nothing was timed."""
        return inverse(self.rtf)

    def scored_by(self, normaliser: str) -> Evaluation:
        """The same with the rates of a set's normaliser (`k2d_hf.scoring.normalisers.NORMALISERS`).

        What follows from the text alone is counted anew, as one that an earlier version kept may not have all of it.
        """
        pairs = [(row["reference"], row["hypothesis"]) for row in self.transcripts]
        return replace(self, **error_figures(pairs, self.language), **rates_of_normaliser(normaliser, pairs))

    def figures(self) -> dict[str, Any]:
        """The figures without the transcripts, ready for JSON."""
        return {name: value for name, value in vars(self).items() if name != "transcripts"}


@takes(EvaluateSettings)
def evaluate_model(
    model: str | Path | Sequence[str] | WhisperForConditionalGeneration | Transcriber,
    recordings: Dataset,
    *,
    processor: WhisperProcessor | None = None,
    name: str | None = None,
    language: str | None = None,
    normaliser: str = MIXED,
    on_progress: Callable[[int], None] | None = None,
    settings: EvaluateSettings,
) -> Evaluation:
    """Transcribe long recordings and score them against their references.

    Args:
        model: checkpoint (path, Hub id, or several to try in order), a loaded Whisper with its `processor`, or a
            loaded `Transcriber` with its own options.
        recordings: data set with `recording` (path) and `reference` (text), as `load_recordings` gives it, and where it
            has `start` and `duration` (s), of spans of these files, of the track and channel in `audio_track` and
            `audio_channel`.
        processor: of a model that is given loaded.
        name: what to call the model; by default its checkpoint.
        language: code or name, such as `zh`, of all recordings; None takes that of the column `language`, and where
            there is none the one in the model's generation config, as `pipeline` does, and without that the model
            detects it.
        normaliser: `mixed`, or `whisper-english` for a word error rate (`wer`) after Whisper's English normaliser
            beside the mixed error rate.
        on_progress: called with the number of recordings done, in each of the runs; None shows a bar as `datasets.map`
            does, and hides it likewise.

    Returns:
        Rates, counts, real-time factor, parameters and transcripts.

    Raises:
        K2DError: if no recording has a reference, none could be read, the model cannot be loaded, or there is no such
            normaliser.
    """
    check_normaliser(normaliser)
    given = None if on_progress is None else lambda count, note: on_progress(count)
    (evaluated,) = evaluate_models(
        {name or "": model}, recordings, settings, language=language, processor=processor, on_progress=given
    ).values()
    return replace(evaluated, model=name or evaluated.model).scored_by(normaliser)


@takes(EvaluateSettings)
def evaluate_sets(
    model: str | Path | Sequence[str] | WhisperForConditionalGeneration | Transcriber,
    sets: Mapping[str, EvaluationSet | Dataset],
    *,
    processor: WhisperProcessor | None = None,
    name: str | None = None,
    language: str | None = None,
    on_progress: Callable[[int], None] | None = None,
    settings: EvaluateSettings,
) -> dict[str, Evaluation]:
    """`evaluate_model` on each of several test sets.

    Args:
        model: as `evaluate_model` takes it, as are `processor`, `name` and `on_progress`.
        sets: by name; recordings alone are scored over mixed tokens. All are checked before the model is loaded.
        language: of the sets that have none of their own.

    Returns:
        An evaluation of each set by its name, in the order given.

    Raises:
        K2DError: as `evaluate_model`, with the name of the set in front.
    """
    chosen = {key: one if isinstance(one, EvaluationSet) else EvaluationSet(one) for key, one in sets.items()}
    for key, one in chosen.items():
        with prefixed(f"{key}: "):
            check_normaliser(one.normaliser)
            check_measurable(one.recordings)
    given: dict[str, Any] = {"processor": processor, "name": name, "on_progress": on_progress, "settings": settings}
    found = {}
    for key, one in chosen.items():
        with prefixed(f"{key}: "):
            found[key] = evaluate_model(
                model, one.recordings, language=one.language or language, normaliser=one.normaliser, **given
            )
    return found


def evaluate_models(
    models: Mapping[str, Any],
    recordings: Dataset,
    settings: EvaluateSettings,
    *,
    language: str | None = None,
    processor: WhisperProcessor | None = None,
    known: Mapping[str, Evaluation] | None = None,
    on_progress: Callable[..., None] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate models beside each other: all are in memory, and take turns on each recording that they are timed on.

    Args:
        models: by name, each as `evaluate_model` takes it, as are `recordings` and `language`.
        settings: how they transcribe, and what they are timed on.
        processor: of those that are given loaded.
        known: by name, evaluations of the very same weights, recordings and options from another day: of these models
            the speed alone is measured anew.
        on_progress: called with the number of recordings that a model has done, in each of the runs, and its name;
            None shows a bar as `datasets.map` does, and hides it likewise.

    Returns:
        An evaluation of each by name, in the order given; their real-time factors are of one measurement.

    Raises:
        K2DError: if no recording has a reference, none could be read, or a model cannot be loaded.
    """
    options, known = settings.decoding(language), known or {}
    given = [options.language, *(getattr(model, "options", options).language for model in models.values())]
    rows, skipped = _readable(recordings, given=next(filter(None, given), None))
    opened = {name: _open(model, processor, options, settings.engine) for name, model in models.items()}
    silence = np.zeros(round(CHUNK_SECONDS * SAMPLE_RATE), np.float32)
    for one in opened.values():
        one.transcriber.transcribe([silence])  # the first pass pays for set-up
    timed, rest = rows[: settings.speed_recordings], rows[settings.speed_recordings or len(rows) :]
    unknown = [name for name in models if name not in known]
    passes = len(timed) * settings.speed_runs * len(models) + len(rest) * len(unknown)
    transcripts: dict[str, list[Transcript]] = {}
    factors: dict[str, list[float]] = {name: [] for name in models}
    with progress_bar(on_progress, "Evaluate", passes, "recordings") as progress:

        def transcribe(names: Sequence[str], part: list[dict[str, Any]], first: int = 0) -> Any:
            chosen = [opened[name] for name in names]
            reading = [(partial(_audio_of, row), [one.language_of(row) for one in chosen]) for row in part]
            advance = lambda index, count: progress(count, names[index])  # noqa: E731
            return transcribe_in_turns([one.transcriber for one in chosen], reading, advance, first=first)

        for run in range(settings.speed_runs):
            written, worked = transcribe(list(models), timed, run)
            for name, texts, seconds in zip(models, written, worked, strict=True):
                transcripts.setdefault(name, texts)
                factors[name].append(seconds / sum(row["seconds"] for row in timed))
        for name in unknown if rest else ():
            transcripts[name] = transcripts[name] + transcribe([name], rest)[0][0]
    measurement = new_measurement(models)
    return {
        name: replace(
            known[name] if name in known else _scored(one, rows, skipped, transcripts[name]),
            rtf=mean(factors[name]),
            rtf_runs=factors[name],
            measurement=measurement,
            **vars(getattr(one.transcriber, "runtime", Runtime())),
        )
        for name, one in opened.items()
    }


@dataclass(frozen=True)
class _Opened:
    """A model that is ready: what it is called, and the language that it transcribes by default."""

    transcriber: Transcriber
    name: str
    language: str | None

    def language_of(self, row: Mapping[str, Any]) -> str | None:
        """The language that it is given for a recording."""
        return None if self.transcriber.options.language else row["language"] or self.language


def _scored(
    opened: _Opened, rows: list[dict[str, Any]], skipped: list[dict[str, Any]], transcripts: Sequence[Transcript]
) -> Evaluation:
    """All figures that follow from the transcripts: all but speed."""
    transcriber, options = opened.transcriber, opened.transcriber.options
    texts = [join_texts(segment.text for segment in transcript.segments) for transcript in transcripts]
    loops = [looping_windows(transcript.segments) for transcript in transcripts]
    return Evaluation(
        model=opened.name,
        **error_figures(((row["reference"], text) for row, text in zip(rows, texts, strict=True)), options.language),
        looping_outputs=sum(loops),
        recordings=len(rows),
        audio_seconds=sum(row["seconds"] for row in rows),
        rtf=0.0,
        rtf_runs=[],
        parameters=transcriber.parameters,
        engine=transcriber.engine,
        language=options.language,
        beam_size=options.beam_size,
        condition_on_previous_text=options.condition_on_previous_text,
        temperature_fallback=len(options.temperatures) > 1,
        skipped=skipped,
        transcripts=[
            {**_named(row, row["name"]), "reference": row["reference"], "hypothesis": text, "looping_windows": count}
            for row, text, count in zip(rows, texts, loops, strict=True)
        ],
    )


def looping_windows(segments: Sequence[Segment]) -> int:
    """How many windows of 30 s hold looping text; a segment counts where it starts.

    h(T) of Eq. 1 is made for chunks: in the text of an hour, phrases that the speaker likes occur often enough. But
    punctuation is not speech: windows that hold nothing else are joined for as long as they follow each other.
    """
    windows: dict[int, list[str]] = {}
    for segment in segments:
        windows.setdefault(int(segment.start // CHUNK_SECONDS), []).append(segment.text)
    texts = [join_texts(windows[window]) for window in sorted(windows)]
    loops = sum(map(is_looping, texts))
    for marks, group in groupby(texts, lambda text: not mixed_tokens(text) and not is_looping(text)):
        together = list(group)
        if marks and is_looping(join_texts(together)):
            loops += len(together)
    return loops


def _named(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Which recording a row is, in lists of them."""
    return {"recording": name, **part_fields(row)}


def _reading_of(row: Mapping[str, Any]) -> Reading:
    return read_recording(row["recording"], *span_of(row), within=True, selection=selection_in(row))


def _audio_of(row: Mapping[str, Any]) -> np.ndarray:
    return _reading_of(row).samples


def _readable(recordings: Dataset, *, given: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Recordings with a reference and audio that can be read, and those left out with the reason."""
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    several_tracks: list[str] = []
    out_of_phase: list[str] = []
    listed = list(recordings)
    for row, called in zip(listed, recording_names([row.get("recording") or "" for row in listed]), strict=True):
        name, reference, language = row.get("recording"), row.get("reference"), None if given else language_of_row(row)
        if name is None:
            raise K2DError(f"no column recording among {', '.join(row)}: load_recordings makes one")
        reason, known = None, {"name": called, "reference": reference, "language": language}
        if not mixed_tokens(reference or ""):
            reason = "no reference"
        elif language is not None and not is_language(language):
            reason = UNKNOWN_LANGUAGE
        else:
            try:
                reading = _reading_of(row)
                known["seconds"] = len(reading.samples) / SAMPLE_RATE
                several_tracks += [called] * (reading.tracks > 1 and selection_in(row).track is None)
                out_of_phase += [called] * reading.cancels
            except AudioError as error:
                logger.warning("%s", error)
                reason = error.reason
        if reason is None:
            rows.append({**_named(row, name), **known})
        else:
            skipped.append({**_named(row, called), "reason": reason})
    if not rows:
        raise nothing_to_measure(len(skipped), recordings)
    if skipped:
        counts = Counter(entry["reason"] for entry in skipped).most_common()
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
        logger.warning("skipped %d of %d recordings: %s", len(skipped), len(skipped) + len(rows), reasons)
    for line in warnings_of(several_tracks, out_of_phase):
        logger.warning("%s", line)
    return rows, skipped


def _open(model: Any, processor: WhisperProcessor | None, options: DecodingOptions, engine: str) -> _Opened:
    """The model, loaded if it is not."""
    from torch.nn import Module

    if isinstance(model, Module):
        if processor is None:
            raise K2DError("a loaded model needs its processor: give processor, or the model's checkpoint")
        loaded: Any = model
        name, config = loaded.config.name_or_path or type(model).__name__, vars(loaded.generation_config)
        return _Opened(TransformersTranscriber(loaded, processor, options), name, language_of_generation(config))
    if isinstance(model, (str, Path, Sequence)):
        checkpoint = resolve_checkpoint(model)
        file = checkpoint.path / "generation_config.json"
        config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        transcriber = open_transcriber(checkpoint.path, options, engine=engine)
        return _Opened(transcriber, checkpoint.name, language_of_generation(config))
    return _Opened(model, type(model).__name__, None)
