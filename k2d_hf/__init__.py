"""k2d_hf: turn unlabelled, code-switched recordings into a small, fast speech recogniser (K2D, arXiv 2407.10603).

The public names load on first use, so that importing the package costs next to nothing.
"""

from k2d_hf.version import __version__

TYPE_CHECKING = False  # type checkers know the name; `typing` would be the most of what the package costs

if TYPE_CHECKING:
    from k2d_hf.data.chunking import Segment, pack_segments
    from k2d_hf.data.labelled import load_labelled
    from k2d_hf.data.recordings import load_recordings
    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.batches.collator import K2DDataCollator
    from k2d_hf.distillation.targets.soft_targets import SoftTargets
    from k2d_hf.distillation.trainer import K2DTrainer
    from k2d_hf.errors import K2DError
    from k2d_hf.evaluation.evaluate import evaluate_model, evaluate_sets
    from k2d_hf.evaluation.sets import EvaluationSet
    from k2d_hf.labelling.hypotheses import TeacherHypotheses
    from k2d_hf.labelling.teacher import label_recordings
    from k2d_hf.models.conversion import import_ctranslate2
    from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2
    from k2d_hf.models.exports.ggml_format import export_ggml
    from k2d_hf.models.student import create_student
    from k2d_hf.pipeline.recipe import load_recipe
    from k2d_hf.pipeline.run import run_recipe
    from k2d_hf.publishing.hub import push_data, push_student
    from k2d_hf.scoring.error_rates import ErrorCounts, count_errors
    from k2d_hf.scoring.metrics import MixedErrorRate, PhonemeErrorRate
    from k2d_hf.scoring.text import mixed_tokens
    from k2d_hf.transcription.transcribe import transcribe
    from k2d_hf.validation.auxiliary import validate_labels
    from k2d_hf.validation.distance import is_looping, label_distance
    from k2d_hf.validation.hypotheses import AuxiliaryHypotheses

_MODULES = {
    "AuxiliaryHypotheses": "validation.hypotheses",
    "ErrorCounts": "scoring.error_rates",
    "EvaluationSet": "evaluation.sets",
    "K2DDataCollator": "distillation.batches.collator",
    "K2DError": "errors",
    "K2DTrainer": "distillation.trainer",
    "K2DTrainingArguments": "distillation.arguments",
    "MixedErrorRate": "scoring.metrics",
    "PhonemeErrorRate": "scoring.metrics",
    "Segment": "data.chunking",
    "SoftTargets": "distillation.targets.soft_targets",
    "TeacherHypotheses": "labelling.hypotheses",
    "count_errors": "scoring.error_rates",
    "create_student": "models.student",
    "evaluate_model": "evaluation.evaluate",
    "evaluate_sets": "evaluation.evaluate",
    "export_ctranslate2": "models.exports.ctranslate2_format",
    "export_ggml": "models.exports.ggml_format",
    "import_ctranslate2": "models.conversion",
    "is_looping": "validation.distance",
    "label_distance": "validation.distance",
    "label_recordings": "labelling.teacher",
    "load_labelled": "data.labelled",
    "load_recipe": "pipeline.recipe",
    "load_recordings": "data.recordings",
    "mixed_tokens": "scoring.text",
    "pack_segments": "data.chunking",
    "push_data": "publishing.hub",
    "push_student": "publishing.hub",
    "run_recipe": "pipeline.run",
    "transcribe": "transcription.transcribe",
    "validate_labels": "validation.auxiliary",
}

__all__ = [
    "AuxiliaryHypotheses",
    "ErrorCounts",
    "EvaluationSet",
    "K2DDataCollator",
    "K2DError",
    "K2DTrainer",
    "K2DTrainingArguments",
    "MixedErrorRate",
    "PhonemeErrorRate",
    "Segment",
    "SoftTargets",
    "TeacherHypotheses",
    "__version__",
    "count_errors",
    "create_student",
    "evaluate_model",
    "evaluate_sets",
    "export_ctranslate2",
    "export_ggml",
    "import_ctranslate2",
    "is_looping",
    "label_distance",
    "label_recordings",
    "load_labelled",
    "load_recipe",
    "load_recordings",
    "mixed_tokens",
    "pack_segments",
    "push_data",
    "push_student",
    "run_recipe",
    "transcribe",
    "validate_labels",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
