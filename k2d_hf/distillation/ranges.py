"""Which numbers the Trainer's arguments may be: transformers takes most of them as they come, and fails, or does not.

A learning rate below 0 trains away from the labels, a batch of 0 chunks fails after hours of labelling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from k2d_hf.errors import K2DError

MOST_SEED = 2**32 - 1  # of numpy
MOST_WORKERS = 1024  # processes that read chunks; no machine has use for more

# Least and most of each number; the names are those of `Seq2SeqTrainingArguments`.
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), (1, math.inf)),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps"), (1, math.inf)),
    **dict.fromkeys(("generation_max_length", "generation_num_beams"), (1, math.inf)),
    **dict.fromkeys(("save_total_limit", "torch_empty_cache_steps", "dataloader_prefetch_factor"), (1, math.inf)),
    **dict.fromkeys(("ddp_bucket_cap_mb", "ddp_timeout"), (1, math.inf)),
    **dict.fromkeys(("learning_rate", "weight_decay", "warmup_steps", "max_grad_norm", "adam_epsilon"), (0, math.inf)),
    **dict.fromkeys(("label_smoothing_factor", "neftune_noise_alpha"), (0, math.inf)),
    **dict.fromkeys(("eval_delay", "shuffle_buffer"), (0, math.inf)),
    "dataloader_num_workers": (0, MOST_WORKERS),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), (0, math.inf)),  # below 1: a share of all
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, math.nextafter(1, 0))),
    **dict.fromkeys(("seed", "data_seed"), (0, MOST_SEED)),
    "num_train_epochs": (math.ulp(0), math.inf),
    "max_steps": (-1, math.inf),
    "local_rank": (-1, math.inf),
    **dict.fromkeys(("ce_weight", "kl_weight", "auxiliary_weight", "encoder_weight"), (0, math.inf)),
    "temperature": (math.ulp(0), math.inf),
    **dict.fromkeys(("timestamp_probability", "previous_text_probability"), (0, 1)),
}
CHOICES: Mapping[str, tuple[str, ...]] = {"include_num_input_tokens_seen": ("all", "non_padding", "no")}
WHERE_USED = {"logging_steps": "logging_strategy", "eval_steps": "eval_strategy", "save_steps": "save_strategy"}


def check_ranges(args: Any) -> None:
    """Look at every number of some training arguments, and at what transformers looks up without asking.

    Raises:
        K2DError: naming the setting, its value and what it may be.
    """
    for name, (least, most) in RANGES.items():
        value = getattr(args, name)
        if isinstance(value, (int, float)) and not least <= value < math.inf:
            raise K2DError(f"{name} {value}: must be finite, and {_at_least(least)}")
        if isinstance(value, (int, float)) and value > most:
            raise K2DError(f"{name} {value}: must be {_at_most(most)}")
    for name, strategy in WHERE_USED.items():
        if getattr(args, name) == 0 and getattr(args, strategy) == "steps":
            raise K2DError(f"{name} 0: must be above 0 where {strategy} is steps")
    if args.max_steps == 0:
        raise K2DError("max_steps 0: give at least 1 step, or -1 to train for num_train_epochs")
    for field in fields(args):
        value = getattr(args, field.name)
        choices = CHOICES.get(field.name, field.metadata.get("choices"))
        if field.name.endswith("_kwargs") and not isinstance(value, dict | None):
            raise K2DError(f"{field.name} {value!r}: must be a mapping")
        if choices and value is not None and value not in choices:
            raise K2DError(f"{field.name} {value!r}: choose one of {', '.join(map(str, choices))}")


def _at_least(least: float) -> str:
    return "above 0" if 0 < least < 1 else f"at least {least:g}"


def _at_most(most: float) -> str:
    return "below 1" if most < 1 else f"at most {most:.0f}"
