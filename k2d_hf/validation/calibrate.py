"""Calibration on disk: validated chunks, and references where there are some, to tables, JSON and a plot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import COUNTED_AT_ONCE, load_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import write_json
from k2d_hf.validation.calibration import ValidatedLabels
from k2d_hf.validation.judges import JUDGES, is_judged

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.validation.calibration_report import Calibration

logger = logging.getLogger(__name__)

_NEEDED = ("duration", "mer", "per", "teacher_loops", "auxiliary_loops", "auxiliary_text")


def calibrate(validated: str | Path, references: str | Path | None, *, metric: str, output: Path | None) -> Calibration:
    """Calibrate on the chunks of `validated`; with `output`, a folder, `calibration.json`, `.png` and `.svg` in it.

    Raises:
        K2DError: for chunks that were not validated, or references of which none belongs to them.
    """
    from k2d_hf.validation.calibration_report import calibrate as calibrate_labels

    chunks = load_chunks(validated)
    missing = [name for name in _NEEDED if name not in chunks.column_names]
    if missing:
        raise K2DError(f"{validated}: no column {', '.join(missing)}; give what `k2d validate` wrote")
    calibration = calibrate_labels(validated_labels(chunks, references), metric)
    if output is not None:
        try:
            write_calibration(calibration, output)
        except K2DError as error:
            logger.warning("%s", error)
    return calibration


def write_calibration(calibration: Calibration, output: Path) -> None:
    """Write `calibration.json`, `.png` and `.svg` in the folder `output`.

    Raises:
        K2DError: without matplotlib, when the first of them is there.
    """
    from k2d_hf.validation.calibration_plot import plot_calibration

    write_json(output / "calibration.json", calibration.as_json())
    plot_calibration(calibration, output / "calibration.png", output / "calibration.svg")


def validated_labels(chunks: Dataset, references: str | Path | None) -> ValidatedLabels:
    """What validation stored of some chunks, with the true MER of their labels where a manifest has references.

    Raises:
        K2DError: if none of the references belongs to these chunks, or they cannot be read.
    """
    import numpy as np

    true_mer = None if references is None else _true_rates(chunks, references)

    judges = [judge.column for judge in JUDGES if judge.column in chunks.column_names]  # not in what is older
    names = [*_NEEDED, *judges, *(["drop_reason"] if "drop_reason" in chunks.column_names else [])]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for batch in chunks.select_columns(names).iter(batch_size=COUNTED_AT_ONCE):
        batch["auxiliary_text"] = [text is not None for text in batch["auxiliary_text"]]
        batch["drop_reason"] = [is_judged(reason) for reason in batch.get("drop_reason", ())]
        for name in names:
            columns[name] += batch[name]
    kinds = dict.fromkeys(("duration", "mer", "per", *judges), float)
    arrays = {name: np.array(values, dtype=kinds.get(name, bool)) for name, values in columns.items()}
    return ValidatedLabels(
        seconds=arrays.pop("duration"),
        transcribed=arrays.pop("auxiliary_text"),
        judged=arrays.pop("drop_reason", None),
        measures={name: arrays.pop(name) for name in judges},
        true_mer=true_mer,
        **arrays,
    )


def _true_rates(chunks: Dataset, file: str | Path) -> Any:
    """True MER of each label [chunks], NaN where its recording has no reference."""
    import numpy as np

    from k2d_hf.data.references import chunk_reference, label_error_rate, references_of

    recordings = chunks.unique("recording")
    references = references_of(file, recordings)
    if len(references) < len(recordings):
        logger.warning(
            "%d of %d recordings have no reference; recall and true MER are those of the others, kept share and hours "
            "of all",
            len(recordings) - len(references),
            len(recordings),
        )
    rates: list[float] = []
    for batch in chunks.select_columns(["recording", "start", "duration", "text"]).iter(batch_size=COUNTED_AT_ONCE):
        for recording, start, duration, text in zip(*batch.values(), strict=True):
            if recording not in references:
                rates.append(float("nan"))
                continue
            spoken = chunk_reference(references[recording], start, duration)
            rates.append(label_error_rate(spoken, text))
    return np.array(rates)
