"""The stages from disk to disk: read the inputs, call the public function, write the outputs, say how it went.

The recipe's runner and the verbs of the command line both come here.
"""

from k2d_hf.data.chunk_files import check_chunks, load_chunks
from k2d_hf.pipeline.stages.comparison import compare
from k2d_hf.pipeline.stages.distillation import distil, student, targets, worth_targets
from k2d_hf.pipeline.stages.evaluation import evaluate, measured_over
from k2d_hf.pipeline.stages.files import local_checkpoint
from k2d_hf.pipeline.stages.labelling import label
from k2d_hf.pipeline.stages.publishing import check_push, push
from k2d_hf.pipeline.stages.reporting import report, report_run
from k2d_hf.pipeline.stages.validation import validate
from k2d_hf.validation.calibrate import calibrate

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
