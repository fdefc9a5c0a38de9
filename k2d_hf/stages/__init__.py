"""The stages from disk to disk: read the inputs, call the public function, write the outputs, say how it went.

The recipe's runner and the verbs of the command line both come here.
"""

from k2d_hf.data.chunk_files import check_chunks, load_chunks
from k2d_hf.stages.calibration import calibrate
from k2d_hf.stages.comparison import compare
from k2d_hf.stages.distillation import distil, student, targets, worth_targets
from k2d_hf.stages.evaluation import evaluate, measured_over
from k2d_hf.stages.files import local_checkpoint
from k2d_hf.stages.labelling import label
from k2d_hf.stages.publishing import check_push, push
from k2d_hf.stages.reporting import report, report_run
from k2d_hf.stages.validation import validate

__all__ = [
    "calibrate",
    "check_chunks",
    "check_push",
    "compare",
    "distil",
    "evaluate",
    "label",
    "load_chunks",
    "local_checkpoint",
    "measured_over",
    "push",
    "report",
    "report_run",
    "student",
    "targets",
    "validate",
    "worth_targets",
]
