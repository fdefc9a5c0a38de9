"""The arguments of `K2DTrainer`: the settings of distillation on top of the Trainer's own, and what each may be."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from transformers import Seq2SeqTrainingArguments

from k2d_hf.distillation.measures import GREATER_IS_BETTER, known_metric
from k2d_hf.distillation.settings import DECLARED, DistillationSettings, check_shares
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import documented
from k2d_hf.models.languages import checked_language
from k2d_hf.scoring.phonemes import phones_by

# Least and most of each number. transformers takes most of its own as they come: a learning rate below 0 trains away
# from the labels, a batch of 0 chunks fails after hours of labelling.
_OF_THE_TRAINER: Mapping[tuple[float, float], str] = {
    (1, math.inf): "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
    "eval_accumulation_steps generation_max_length generation_num_beams save_total_limit torch_empty_cache_steps "
    "dataloader_prefetch_factor ddp_bucket_cap_mb ddp_timeout",
    (0, math.inf): "learning_rate weight_decay warmup_steps max_grad_norm adam_epsilon label_smoothing_factor "
    "neftune_noise_alpha eval_delay logging_steps eval_steps save_steps",  # steps below 1: a share of all
    (0, 1024): "dataloader_num_workers",  # no machine has use for more
    (0, math.nextafter(1, 0)): "adam_beta1 adam_beta2",
    (0, 2**32 - 1): "seed data_seed",  # of numpy
    (math.ulp(0), math.inf): "num_train_epochs",
    (-1, math.inf): "max_steps local_rank",
}
RANGES: Mapping[str, tuple[float, float]] = {
    **{name: bounds for bounds, names in _OF_THE_TRAINER.items() for name in names.split()},
    **{name: (about["least"], about["most"]) for name, about in DECLARED.items() if about["least"] is not None},
}
CHOICES: Mapping[str, tuple[str, ...]] = {"include_num_input_tokens_seen": ("all", "non_padding", "no")}
WHERE_USED = {"logging_steps": "logging_strategy", "eval_steps": "eval_strategy", "save_steps": "save_strategy"}


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
        """Check our own fields, then let transformers check its; K2DError names setting, value and what it may be."""
        self.language = checked_language(self.language)
        phones_by(self.espeak_language)  # which espeak-ng may not have
        _check_ours(self)
        if not any(getattr(self, name) for name, about in DECLARED.items() if about["loss_term"]):
            raise K2DError("ce_weight, kl_weight and the other weights are all 0: there is nothing to learn from")
        if self.on_policy and not self.kl_weight:
            raise K2DError(f"on_policy {self.on_policy}: the teacher judges what is written; set kl_weight above 0")
        if self.remove_unused_columns:
            raise K2DError("remove_unused_columns must be False: the collator reads the columns of the chunks")
        if self.label_smoothing_factor:
            raise K2DError("label_smoothing_factor must be 0: the teacher's probabilities take its place in this loss")
        if self.greater_is_better is None and (metric := known_metric(self.metric_for_best_model or "")):
            self.greater_is_better = GREATER_IS_BETTER[metric]  # transformers takes all but losses for the greater
        super().__post_init__()
        _check_trainers(self)

    @property
    def draw_seed(self) -> int:
        """Of the labels' draws, and of the order of chunks."""
        return self.seed if self.data_seed is None else self.data_seed

    def __getstate__(self) -> dict[str, Any]:
        """Without the token: the Trainer pickles its arguments into every folder that it saves, and pushes them."""
        return {**vars(self), "hub_token": None}


def _check_ours(args: K2DTrainingArguments) -> None:
    """Check each setting of ours against what is declared with it."""
    check_shares(args.shares)
    for name, about in DECLARED.items():
        value, least, most = getattr(args, name), about["least"], about["most"]
        if about["choices"] and value not in about["choices"]:
            raise K2DError(f"{name} {value!r}: choose one of {', '.join(about['choices'])}")
        if least is not None and not least <= value <= min(most, sys.float_info.max):
            wanted = "not be negative, and finite" if least == 0 else "be above 0, and finite"
            wanted = wanted if most == math.inf else f"be between {least:g} and {most:g}"
            raise K2DError(f"{name} {value}: must {wanted}")


def _check_trainers(args: K2DTrainingArguments) -> None:
    """Check each number of the Trainer's, and what transformers looks up without a check."""
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if not isinstance(value, (int, float)):
            continue
        if not least <= value < math.inf:
            wanted = "above 0" if 0 < least < 1 else f"at least {least:g}"
            raise K2DError(f"{name} {value}: must be finite, and {wanted}")
        if value > most:
            raise K2DError(f"{name} {value}: must be {'below 1' if most < 1 else f'at most {most:.0f}'}")
    for name, strategy in WHERE_USED.items():
        if getattr(args, name) == 0 and getattr(args, strategy) == "steps":
            raise K2DError(f"{name} 0: must be above 0 where {strategy} is steps")
    if args.max_steps == 0:
        raise K2DError("max_steps 0: give at least 1 step, or -1 to train for num_train_epochs")
    for one in fields(args):
        value = getattr(args, one.name)
        choices = CHOICES.get(one.name, one.metadata.get("choices"))
        if one.name.endswith("_kwargs") and not isinstance(value, dict | None):
            raise K2DError(f"{one.name} {value!r}: must be a mapping")
        if choices and value is not None and value not in choices:
            raise K2DError(f"{one.name} {value!r}: choose one of {', '.join(map(str, choices))}")
