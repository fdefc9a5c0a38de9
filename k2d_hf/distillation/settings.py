"""The settings of distillation that are our own: the loss (K2D, stage 3), and what a label looks like to the student.

Apart from the Trainer's, and without torch, so that `k2d distil --help` can show them at once. A setting is declared
here and nowhere else: recipe, option, argument, help, table of the docs, range, cache key and card are derived. What a
change of one costs is declared with it (`files.settings.deciding`); an undeclared one decides everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from k2d_hf.distillation.loss.divergences import DIVERGENCES, FORWARD
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import documented, setting

AGREEMENT = "agreement"  # the weighting of tokens by the auxiliary's transcript
DISAGREED = 0.5  # weight of a token that the auxiliary does not have, by agreement: some are the auxiliary's errors


def _by_name(reasons: Mapping[str, str]) -> dict[str, str]:
    return {name: why for why, names in reasons.items() for name in names.split()}


# The Trainer's own settings with which the student is the same, and why; any other trains anew.
TRAINER_WITHOUT_EFFECT = _by_name(
    {
        "who reads the chunks, not which, nor in what order": "dataloader_num_workers dataloader_pin_memory "
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context",
        "reports of the training": "disable_tqdm log_level log_level_replica log_on_each_node report_to run_name "
        "project trackio_space_id trackio_bucket_id trackio_static_space_id",
        "checkpoints, from which an interrupted training resumes": "save_strategy save_steps save_total_limit "
        "save_on_each_node enable_jit_checkpoint",
        "training pushes nothing": "hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision",
        "memory alone": "torch_empty_cache_steps",
    }
)
# Those that a card has no use for: they decide nothing of the student, or are known otherwise.
TRAINER_NOT_ON_CARD = TRAINER_WITHOUT_EFFECT | _by_name(
    {
        "what is measured and noted while a student learns, not what it learns": "logging_strategy logging_steps "
        "logging_first_step logging_nan_inf_filter include_num_input_tokens_seen skip_memory_metrics debug "
        "save_only_model eval_strategy eval_steps eval_delay eval_on_start eval_do_concat_batches "
        "eval_use_gather_object eval_accumulation_steps per_device_eval_batch_size bf16_full_eval fp16_full_eval "
        "prediction_loss_only batch_eval_metrics greater_is_better predict_with_generate generation_max_length "
        "generation_num_beams",
        "set by k2d, or shown in another row": "do_train do_eval do_predict push_to_hub remove_unused_columns use_cpu "
        "local_rank",
    }
)


def _setting(
    default: Any,
    help: str,
    *,
    training_alone: bool = False,
    keeps_teacher: bool = False,
    loss_term: bool = False,
    **declared: Any,
) -> Any:
    """A setting (`files.settings.setting`) that may decide how the student learns, and no soft target.

    Other than 0, it may need the teacher in memory, whatever is stored of its output, or be the weight of a term of the
    loss, of which there has to be one.
    """
    bounds = {"most": math.inf} if "least" in declared else {}
    made = setting(default, help, **{**bounds, **declared})
    ours = {"training_alone": training_alone, "keeps_teacher": keeps_teacher, "loss_term": loss_term}
    return field(default=default, metadata={**made.metadata, **ours})


@documented
@dataclass
class DistillationSettings:
    """What `K2DTrainingArguments` adds to the Trainer's arguments; the defaults are the paper's loss."""

    ce_weight: float = _setting(
        0.8, "Weight of the cross-entropy on the labels (beta).", least=0, training_alone=True, loss_term=True
    )
    kl_weight: float = _setting(
        1.0, "Weight of the KL from the teacher (gamma).", least=0, training_alone=True, loss_term=True
    )
    auxiliary_weight: float = _setting(0.0, "Weight of the KL from the auxiliary (lambda).", least=0, loss_term=True)
    temperature: float = _setting(2.0, "Temperature of both KL terms (T).", least=math.ulp(0))
    divergence: str = _setting(
        FORWARD,
        "Divergence of both KL terms: forward is the paper's, KL(teacher || student); reverse is KL(student || "
        "teacher); jensen-shannon is bounded (GKD).",
        choices=tuple(DIVERGENCES),
        training_alone=True,
    )
    on_policy: float = _setting(
        0.0,
        "Share of steps in which the label is what the student writes itself, and the loss the divergence from the "
        "teacher alone (GKD); the teacher is then in memory.",
        least=0,
        most=1,
        training_alone=True,
        keeps_teacher=True,
    )
    on_policy_temperature: float = _setting(
        0.0, "Temperature at which the student writes there; 0 is greedy.", least=0, training_alone=True
    )
    encoder_weight: float = _setting(
        0.0,
        "Weight of the mean squared distance between the encoder states of student and teacher, for a trained encoder "
        "with fewer layers (freeze_encoder false).",
        least=0,
        training_alone=True,
        keeps_teacher=True,
        loss_term=True,
    )
    freeze_encoder: bool = _setting(True, "Frozen encoder: the decoder alone is trained, as in the paper.")
    freeze_embeddings: bool = _setting(
        False,
        "Frozen token embedding, which is also the output layer: without the largest gradient of a small student.",
        training_alone=True,
    )
    initial_share: float = _setting(
        0.0,
        "Share of the weights that the student began with, in the trained ones (WiSE-FT): 0.5 is their mean, which "
        "forgets less.",
        least=0,
        most=1,
        training_alone=True,
    )
    timestamp_probability: float = _setting(
        0.5, "Probability of timestamps in a label; drawn anew each epoch.", least=0, most=1
    )
    previous_text_probability: float = _setting(
        0.2, "Probability of the text of the chunk before as prompt, where there is one.", least=0, most=1
    )
    full_windows: bool = _setting(
        False,
        "Windows of 30 s from a chunk's start where there are timestamps, as in long-form decoding; the label then "
        "ends with the start of the segment that is cut off, as Whisper's own do.",
    )
    keep_encoder_states: bool = _setting(
        True,
        "One pass of a frozen encoder shared with the teacher, its states kept on disk (float16), where there are "
        "several epochs, no auxiliary, and room on the disk.",
    )
    encoder_states_dir: str | None = _setting(
        None, "Folder of these states; null is one beside the checkpoints.", no_effect="a place"
    )
    group_by_label_length: bool = _setting(
        True, "Batches of labels of like length, as drawn for the epoch; else random ones.", training_alone=True
    )
    shuffle_buffer: int = _setting(
        1000,
        "Chunks of a stream held in memory, from which the next is drawn; 0 is the stream's own order.",
        least=0,
        training_alone=True,
    )
    augment: float = _setting(
        0.0,
        "Probability that the student's input is disturbed (speed, room, noise, telephone band, gain, masks), while "
        "label and soft targets are of the clean audio.",
        least=0,
        most=1,
        training_alone=True,
    )
    augment_copies: int = _setting(
        4,
        "Disturbed copies of a chunk, one an epoch in turn; each is kept where encoder states are.",
        least=1,
        training_alone=True,
    )
    shares: dict[str, float] | None = _setting(
        None,
        "Share of an epoch's chunks by source, as the column source names it: {corpus: 0.2}. A source without one, and "
        "the pseudo-labels, have all their chunks in it once.",
        training_alone=True,
        metavar="{NAME: SHARE}",
    )
    chunk_weighting: str = _setting(
        "hard",
        "Weight of a chunk in the loss: hard is 1, soft is 1 - distance, at least 0.",
        choices=("hard", "soft"),
        training_alone=True,
    )
    token_weighting: str = _setting(
        "none",
        "Weight of a token in the loss: none is 1; agreement is 1 where the auxiliary's transcript has the word too, "
        f"by phonemes, else {DISAGREED:g}.",
        choices=("none", AGREEMENT),
        training_alone=True,
    )
    espeak_language: str | None = _setting(
        None,
        "Language of espeak-ng by whose phones agreement compares, the one that chunks were validated with; a run has "
        "that of validate.espeak_language.",
        metavar="CODE",
        training_alone=True,
    )
    language: str | None = _setting(
        None, "Language of chunks that carry none, such as zh, and the student's default.", metavar="CODE"
    )
    task: str = _setting("transcribe", "Whisper's task.", choices=("transcribe", "translate"))


DECLARED: Mapping[str, Mapping[str, Any]] = {one.name: one.metadata for one in fields(DistillationSettings)}
TRAINING_ALONE = tuple(name for name, about in DECLARED.items() if about["training_alone"])


def keeps_teacher(settings: Mapping[str, Any]) -> str | None:
    """The setting, of those given, that needs the teacher in memory whatever is stored of its output; None without."""
    return next((name for name, about in DECLARED.items() if about["keeps_teacher"] and settings.get(name)), None)


def check_shares(shares: Any) -> None:
    """Raise K2DError for shares of an epoch that are none, or leave nothing to the other sources."""
    if shares is None:
        return
    if not isinstance(shares, Mapping):
        raise K2DError(f"shares {shares!r}: must be a mapping, such as corpus: 0.2")
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
            raise K2DError(f"shares: {name} {share!r}: must be above 0, and below 1")
    if math.fsum(shares.values()) >= 1 - 1e-9:
        raise K2DError(f"shares {shares}: together must be below 1; the rest is of the other sources")


def chunks_in_epoch(counts: Mapping[Any, int], shares: Mapping[str, float] | None) -> dict[Any, int]:
    """How many chunks of each source an epoch has: of one without a share all, else its share to the nearest chunk.

    They are by name; that of the pseudo-labels is None.

    >>> chunks_in_epoch({None: 80, "corpus": 500}, {"corpus": 0.2})
    {None: 80, 'corpus': 20}
    """
    shares = {name: share for name, share in (shares or {}).items() if counts.get(name)}
    whole = sum(count for name, count in counts.items() if name not in shares)
    total = whole / (1 - math.fsum(shares.values()))
    return {
        name: max(1, round(shares[name] * total)) if name is not None and name in shares else count
        for name, count in counts.items()
    }


def deciding_training(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of distillation that a recipe gives, those that decide what the student becomes."""
    without = {name for name, about in DECLARED.items() if about["no_effect"]} | TRAINER_WITHOUT_EFFECT.keys()
    return {name: value for name, value in given.items() if name not in without}


def deciding_targets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Likewise those that decide what the soft targets are: of our own, as the Trainer's say how to learn from them.

    Whether targets are written at all depends on others, too.
    """
    ours = DECLARED.keys() - set(TRAINING_ALONE)
    return {name: value for name, value in deciding_training(given).items() if name in ours}
