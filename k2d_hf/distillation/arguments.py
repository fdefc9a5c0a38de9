"""The settings of distillation: the weights of the loss (K2D, stage 3) on top of the Trainer's own arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transformers import Seq2SeqTrainingArguments

from k2d_hf.distillation.measures import GREATER_IS_BETTER, known_metric
from k2d_hf.distillation.ranges import check_ranges
from k2d_hf.distillation.settings import CHUNK_WEIGHTINGS, TASKS, DistillationSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import documented
from k2d_hf.models.languages import checked_language


@partial(documented, besides=Seq2SeqTrainingArguments)
@dataclass
class K2DTrainingArguments(DistillationSettings, Seq2SeqTrainingArguments):
    """Training arguments whose defaults are the paper's loss.

    Everything else is `Seq2SeqTrainingArguments`; of that only `remove_unused_columns` differs, as the collator needs
    the columns of the chunks.
    """

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: the collator reads the columns of the chunks."}
    )

    def __post_init__(self) -> None:
        """Check our own fields, then let transformers check its.

        Raises:
            K2DError: naming the setting, its value and what it may be.
        """
        self.language = checked_language(self.language)
        for name in ("ce_weight", "kl_weight", "auxiliary_weight", "encoder_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise K2DError(f"{name} {getattr(self, name)}: must not be negative, and finite")
        if self.ce_weight + self.kl_weight + self.auxiliary_weight + self.encoder_weight == 0:
            raise K2DError("ce_weight, kl_weight and the other weights are all 0: there is nothing to learn from")
        if not 0 < self.temperature < math.inf:
            raise K2DError(f"temperature {self.temperature}: must be above 0, and finite")
        for name in ("timestamp_probability", "previous_text_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise K2DError(f"{name} {getattr(self, name)}: must be between 0 and 1")
        for name, choices in (("chunk_weighting", CHUNK_WEIGHTINGS), ("task", TASKS)):
            if getattr(self, name) not in choices:
                raise K2DError(f"{name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.shuffle_buffer < 0:
            raise K2DError(f"shuffle_buffer {self.shuffle_buffer}: must not be negative")
        if self.remove_unused_columns:
            raise K2DError("remove_unused_columns must be False: the collator reads the columns of the chunks")
        if self.label_smoothing_factor:
            raise K2DError("label_smoothing_factor must be 0: the teacher's probabilities take its place in this loss")
        if self.greater_is_better is None and (metric := known_metric(self.metric_for_best_model or "")):
            self.greater_is_better = GREATER_IS_BETTER[metric]  # transformers takes all but losses for the greater
        super().__post_init__()
        check_ranges(self)

    def __getstate__(self) -> dict[str, Any]:
        """Without the token: the Trainer pickles its arguments into every folder that it saves, and pushes them."""
        return {**vars(self), "hub_token": None}
