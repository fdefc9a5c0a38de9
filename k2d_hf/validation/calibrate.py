"""Calibration on disk: validated chunks, and references where there are some, to JSON and a plot."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_files import COUNTED_AT_ONCE, load_chunks
from k2d_hf.data.chunk_schema import MORE_AUXILIARIES, SEGMENT_VERDICTS, rows_of
from k2d_hf.data.chunking import Segment
from k2d_hf.data.references import chunk_reference, label_error_rate, references_of
from k2d_hf.data.segment_references import true_rates, units_of
from k2d_hf.errors import K2DError
from k2d_hf.files.extras import install_hint
from k2d_hf.files.json_files import write_json
from k2d_hf.validation.calibration import BAD_MER, THRESHOLD_METRICS, FurtherTranscripts, ValidatedLabels
from k2d_hf.validation.calibration_report import Calibration, kept_line
from k2d_hf.validation.calibration_report import calibrate as calibrate_labels
from k2d_hf.validation.combining import is_of_several
from k2d_hf.validation.distance import MEDIAN
from k2d_hf.validation.judges import JUDGES, is_judged
from k2d_hf.validation.parallel import compare_many
from k2d_hf.validation.settings import ValidateSettings

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

COLOURS = {"mer": "#0072b2", "per": "#009e73", "composite": "#d55e00"}  # colour-blind readers can distinguish them
_OF_A_UNIT = (
    *("seconds", "mer", "per", "teacher_loops", "auxiliary_loops", "transcribed"),
    *("true_mer", "judged", "combined", "keep", "bad_seconds"),
)
_NEEDED = ("duration", "mer", "per", "teacher_loops", "auxiliary_loops", "auxiliary_text")


def calibrate(
    validated: str | Path,
    references: str | Path | None,
    *,
    metric: str,
    output: Path | None,
    compared: ValidateSettings | None = None,
    auxiliaries_by: str = MEDIAN,
) -> Calibration:
    """Calibrate on the chunks of `validated`; with `output`, a folder, `calibration.json`, `.png` and `.svg` in it.

    With `compared` the transcripts are compared anew, by its `espeak_language` and `normalise_by`. Of several
    auxiliaries the distance is that of all, `auxiliaries_by` median or vote.

    Raises:
        K2DError: for chunks that were not validated, references of which none belongs to them, or a language that
            espeak-ng does not have.
    """
    chunks = load_chunks(validated)
    missing = [name for name in _NEEDED if name not in chunks.column_names]
    if missing:
        raise K2DError(f"{validated}: no column {', '.join(missing)}; give what `k2d validate` wrote")
    if compared is not None and SEGMENT_VERDICTS in chunks.column_names:
        raise K2DError(f"{validated}: judged by segments, which are not compared anew; validate with other settings")
    labels = replace(validated_labels(chunks, references), auxiliaries_by=auxiliaries_by)
    if compared is not None:
        (mer, per), *others = compared_anew(chunks, compared)
        pairs = zip(labels.further, others, strict=True)
        further = [replace(one, mer=of_one[0], per=of_one[1]) for one, of_one in pairs]
        labels = replace(labels, mer=mer, per=per, further=further)
    calibration = calibrate_labels(labels, metric)
    if output is not None:
        try:
            write_calibration(calibration, output)
        except K2DError as error:
            logger.warning("%s", error)
    return calibration


def kept_speech(
    validated: str | Path, references: str | Path, metric: str, threshold: float, auxiliaries_by: str = MEDIAN
) -> str:
    """What judging segments kept, and how much of it is bad, beside what whole chunks would keep, in one line.

    The first is the verdict of validation, the other by the distance of the chunks, `metric` and `threshold`.

    Raises:
        K2DError: as `calibrate` does.
    """
    labels = replace(validated_labels(load_chunks(validated), references), auxiliaries_by=auxiliaries_by)
    return kept_line(calibrate_labels(labels), metric, threshold)


def validated_labels(chunks: Dataset, references: str | Path | None) -> ValidatedLabels:
    """What validation stored of some chunks, with the true MER of their labels where a manifest has references.

    Of chunks that were judged by segments, a label is that of a segment.

    Raises:
        K2DError: if none of the references belongs to these chunks, or they cannot be read.
    """
    known = None if references is None else _known_references(chunks, references)
    judges = [judge.column for judge in JUDGES if judge.column in chunks.column_names]  # not in what is older
    names = [*_NEEDED, *judges, *(name for name in ("drop_reason", "keep") if name in chunks.column_names)]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    combined: list[bool] = []
    for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE):
        batch["auxiliary_text"] = [text is not None for text in batch["auxiliary_text"]]
        reasons = batch.get("drop_reason", ())
        combined += map(is_of_several, reasons)
        batch["drop_reason"] = list(map(is_judged, reasons))
        for name in names:
            columns[name] += batch[name]
    kinds = dict.fromkeys(("duration", "mer", "per", *judges), float)
    arrays: dict[str, Any] = {name: np.array(values, dtype=kinds.get(name, bool)) for name, values in columns.items()}
    of_units = None if known is None else _unit_rates(chunks, known)
    segments = SEGMENT_VERDICTS in chunks.column_names
    further, all_wrote = ([], True) if segments else _further(chunks)  # of segments `by_segment` reads both
    labels = ValidatedLabels(
        seconds=arrays.pop("duration"),
        transcribed=arrays.pop("auxiliary_text") & all_wrote,
        further=further,
        judged=arrays.pop("drop_reason", None),
        combined=np.array(combined, dtype=bool) if "drop_reason" in names else None,
        keep=arrays.pop("keep", None),
        measures={name: arrays.pop(name) for name in judges},
        true_mer=None if known is None else _true_rates(chunks, known),
        bad_seconds=None if of_units is None else _bad_seconds(chunks, of_units),
        **arrays,
    )
    return by_segment(labels, chunks, of_units) if segments else labels


def _further(chunks: Dataset) -> tuple[list[FurtherTranscripts], np.ndarray]:
    """What decides of the transcripts of auxiliaries beside the first, and whether all of them wrote one [chunks]."""
    rows: list[list[tuple[float, ...]]] = [[]] * len(chunks)
    if MORE_AUXILIARIES in chunks.column_names:
        batches = chunks.select_columns([MORE_AUXILIARIES]).iter(batch_size=COUNTED_AT_ONCE)
        rows = [
            [(one["loops"], one["mer"], one["per"], one["text"] is not None) for one in others or ()]
            for batch in batches
            for others in batch[MORE_AUXILIARIES]
        ]
    wrote = np.array([all(one[3] for one in others) for others in rows], dtype=bool)
    return _transcripts(rows, 4), wrote


def _transcripts(values: Sequence[Sequence[tuple[float, ...]]], size: int) -> list[FurtherTranscripts]:
    """Of each auxiliary as arrays: loops, MER and PER, the first of `size` values by chunk and auxiliary.

    Raises:
        K2DError: for chunks of which some have more auxiliaries than others.
    """
    if len(set(map(len, values))) > 1:
        raise K2DError("some chunks were judged by more auxiliaries than others; validate all of them together")
    count = len(values[0]) if values else 0
    arrays = np.array(values, dtype=float).reshape(len(values), count, size).transpose(1, 0, 2)
    return [FurtherTranscripts(one[:, 0].astype(bool), one[:, 1], one[:, 2]) for one in arrays]


def compared_anew(chunks: Dataset, settings: ValidateSettings) -> list[np.ndarray]:
    """MER and PER as these settings give them, from the transcripts of each auxiliary that are stored [2, chunks]."""
    names = [name for name in ("text", "auxiliary_text", MORE_AUXILIARIES) if name in chunks.column_names]
    rows = (row for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE) for row in rows_of(batch))
    texts = (
        (row["text"], text or "")
        for row in rows
        for text in (row["auxiliary_text"], *(one["text"] for one in row.get(MORE_AUXILIARIES) or ()))
    )
    rates = [(one.mer, one.per) for one in compare_many(texts, normalise_by=settings.normalise_by, **settings.phones)]
    by_chunk = np.array(rates, dtype=float).reshape(len(chunks), -1, 2)
    return list(by_chunk.transpose(1, 2, 0))


def _known_references(chunks: Dataset, file: str | Path) -> dict[str, list[Segment]]:
    recordings = chunks.unique("recording")
    references = references_of(file, recordings)
    if len(references) < len(recordings):
        logger.warning(
            "%d of %d recordings have no reference; recall and true MER are those of the others, kept share and hours "
            "of all",
            len(recordings) - len(references),
            len(recordings),
        )
    return references


def _true_rates(chunks: Dataset, references: Mapping[str, list[Segment]]) -> np.ndarray:
    """True MER of each label [chunks], NaN where its recording has no reference."""
    rates: list[float] = []
    for batch in chunks.select_columns(["recording", "start", "duration", "text"]).iter(batch_size=COUNTED_AT_ONCE):
        for recording, start, duration, text in zip(*batch.values(), strict=True):
            if recording in references:
                rates.append(label_error_rate(chunk_reference(references[recording], start, duration), text))
            else:
                rates.append(float("nan"))
    return np.array(rates)


def _unit_rates(chunks: Dataset, references: Mapping[str, list[Segment]]) -> list[list[float] | None]:
    """True MER of each segment of each chunk; None where its recording has no reference."""
    names = [name for name in ("recording", "start", "duration", "text", "segments") if name in chunks.column_names]
    of_recording: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    rows = (row for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE) for row in rows_of(batch))
    for index, row in enumerate(rows):
        if row["recording"] in references:
            of_recording[row["recording"]].append((index, row))
    rates: list[list[float] | None] = [None] * len(chunks)
    for recording, numbered in of_recording.items():
        found = true_rates([row for _, row in numbered], references[recording])
        for (index, _), of_chunk in zip(numbered, found, strict=True):
            rates[index] = of_chunk
    return rates


def _bad_seconds(chunks: Dataset, rates: Sequence[list[float] | None]) -> np.ndarray:
    """Seconds of the bad segments of each chunk [chunks], NaN where it has no reference."""
    names = [name for name in ("duration", "text", "segments") if name in chunks.column_names]
    rows = (row for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE) for row in rows_of(batch))
    return np.array([_bad(units_of(row), of_chunk) for row, of_chunk in zip(rows, rates, strict=True)])


def _bad(units: Sequence[tuple[str, float]], rates: Sequence[float] | None) -> float:
    if rates is None:
        return float("nan")
    return sum(seconds for (_, seconds), rate in zip(units, rates, strict=True) if rate > BAD_MER)


def by_segment(labels: ValidatedLabels, chunks: Dataset, rates: Sequence[list[float] | None] | None) -> ValidatedLabels:
    """The labels of chunks as those of the segments that were judged; a chunk that was judged as one stays."""
    names = ["duration", "segments", SEGMENT_VERDICTS, "chunk_distance"]
    names += [MORE_AUXILIARIES] if MORE_AUXILIARIES in chunks.column_names else []
    rows = (row for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE) for row in rows_of(batch))
    units: dict[str, list[Any]] = defaultdict(list)
    theirs: list[list[tuple[float, ...]]] = []  # of more auxiliaries, for each unit
    for index, row in enumerate(rows):
        distance = row["chunk_distance"]
        one = {name: getattr(labels, name) for name in _OF_A_UNIT}
        same = {name: values[index] for name, values in one.items() if values is not None}
        same["chunk_distances"] = math.inf if distance is None else distance
        more = row.get(MORE_AUXILIARIES) or ()
        same["transcribed"] &= all(other["text"] is not None for other in more)
        of_chunk = None if rates is None else rates[index]
        for at, verdict in enumerate(row[SEGMENT_VERDICTS] or [None]):
            unit = same
            if verdict is not None:
                seconds = row["segments"][at]["end"] - row["segments"][at]["start"]
                unit = {**same, **{name: verdict[name] for name in ("mer", "per", "teacher_loops")}, "seconds": seconds}
                reason = verdict["drop_reason"]
                unit |= {"judged": is_judged(reason), "combined": is_of_several(reason), "keep": reason is None}
                if rates is not None:
                    rate = float("nan") if of_chunk is None else of_chunk[at]
                    bad = float("nan") if of_chunk is None else seconds * (rate > BAD_MER)
                    unit |= {"true_mer": rate, "bad_seconds": bad}
            for name, value in unit.items():
                units[name].append(value)
            of_unit = [one if verdict is None else one["segments"][at] for one in more]
            theirs.append([(one["loops"], of["mer"], of["per"]) for one, of in zip(more, of_unit, strict=True)])
    arrays: Any = {name: np.array(values) for name, values in units.items()}
    return replace(labels, **arrays, further=_transcripts(theirs, 3))


def write_calibration(calibration: Calibration, output: Path) -> None:
    """Write `calibration.json`, and the plot as `.png` and `.svg`, in the folder `output`.

    Raises:
        K2DError: without matplotlib, when the first of them is there.
    """
    write_json(output / "calibration.json", {"bad_mer": BAD_MER, **asdict(calibration)})
    try:
        from matplotlib.figure import Figure  # never pyplot, which looks for a screen and keeps every figure
    except ImportError:
        raise K2DError(f"no plot: it takes matplotlib; {install_hint('report')}") from None
    known = calibration.references is not None
    figure = Figure(figsize=(10.0 if known else 5.5, 4.0), layout="constrained")
    axes: Any = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _draw_kept(axes[0], calibration)
    if known:
        _draw_recall(axes[1], calibration)
    for one in axes:
        one.axvline(calibration.recommendation.alpha, color="0.4", linestyle=":", linewidth=1)
        one.set(xlabel="threshold alpha", xlim=(0, 1), ylim=(-0.02, 1.02))
        one.grid(alpha=0.3)
    axes[0].legend(loc="lower right", frameon=False)
    for ending in ("png", "svg"):
        figure.savefig(output / f"calibration.{ending}", dpi=150)


def _draw_kept(axis: Any, calibration: Calibration) -> None:
    for name in THRESHOLD_METRICS:
        points = calibration.curves[name].points
        axis.step([p.alpha for p in points], [p.kept for p in points], where="post", color=COLOURS[name], label=name)
    chosen = calibration.recommendation
    axis.plot(chosen.alpha, calibration.curves[chosen.metric].at(chosen.alpha).kept, "o", color=COLOURS[chosen.metric])
    axis.annotate(f" {chosen.alpha:.2f}", (chosen.alpha, 0.0), color="0.3")
    axis.set(ylabel="share of chunks kept", title=f"{calibration.chunks} chunks, {calibration.hours:.2f} h")


def _draw_recall(axis: Any, calibration: Calibration) -> None:
    for name in THRESHOLD_METRICS:
        points = [p for p in calibration.curves[name].points if p.recall is not None]
        recalls: list[Any] = [p.recall for p in points]
        axis.step([p.alpha for p in points], recalls, where="post", color=COLOURS[name])
    points = [p for p in calibration.curves[calibration.recommendation.metric].points if p.good_dropped is not None]
    dropped: list[Any] = [p.good_dropped for p in points]
    style = {"color": COLOURS[calibration.recommendation.metric], "linestyle": "--", "linewidth": 1}
    axis.step([p.alpha for p in points], dropped, where="post", label="good labels dropped", **style)
    assert calibration.references is not None
    axis.set(ylabel="share dropped", title=f"recall of {calibration.references.bad} bad labels")
    axis.legend(loc="upper right", frameon=False)
