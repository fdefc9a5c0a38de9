"""Results on benchmarks of the Hub, as files of `.eval_results/` in a student's repository.

The form is that of huggingface.co/docs/hub/eval-results, which huggingface_hub writes. A result belongs to a data set
that is registered as a benchmark, and to a task in its `eval.yaml`; only a recipe that names the task has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from k2d_hf.evaluation.table import main_rate
from k2d_hf.evaluation.timing import MEASUREMENT
from k2d_hf.files.storage import write_atomic
from k2d_hf.publishing.card_names import hub_id, one_line
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from k2d_hf.publishing.model_card_data import EvaluatedSet

FOLDER = ".eval_results/"
OURS = "k2d-"  # what names of our files begin with, so that those of others are left alone
ONLY = "evaluation"  # in the name of the file of a set without a name
_RATES = {"mer": "MER in percent (mixed error rate)", "wer": "WER in percent (Whisper's English normaliser)"}


def result_file(measured: EvaluatedSet) -> tuple[str, str] | None:
    """Name and content of the file with a set's result; None of a set that is no benchmark, or without a student."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    dataset, student = hub_id(measured.dataset), measured.figures.get("student")
    if dataset is None or not measured.task or student is None:
        return None
    _, rate = main_rate(measured.figures)
    day = ((student.get(MEASUREMENT) or {}).get("date") or "").partition(" ")[0]
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=one_line(measured.task),
        value=round(100 * student[rate], 2),
        date=day or None,
        notes=f"{_RATES[rate]}, long-form by {student['engine']}, beam {student['beam_size']}, k2d_hf {__version__}",
    )
    content: Any = eval_result_entries_to_yaml([entry])
    return f"{OURS}{measured.name or ONLY}.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def write_results(evaluations: Iterable[EvaluatedSet], student: Path) -> None:
    """Write the results into the folder of a student, and take away those that it has no more."""
    files = dict(filter(None, map(result_file, evaluations)))
    for path in result_files(student):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (student / FOLDER).mkdir(exist_ok=True)
        write_atomic(str(student / FOLDER / name), content.encode())


def result_files(student: Path) -> list[Path]:
    """Our results in the folder of a student."""
    return sorted((student / FOLDER).glob(f"{OURS}*.yaml"))
