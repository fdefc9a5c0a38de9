"""The settings of distillation: the weights of the loss (K2D, stage 3) on top of the Trainer's own arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments

from k2d_hf.errors import K2DError

CHUNK_WEIGHTINGS = ("hard", "soft")


@dataclass
class K2DTrainingArguments(Seq2SeqTrainingArguments):
    """Training arguments whose defaults are the paper's loss.

    Everything else is `Seq2SeqTrainingArguments`; only `remove_unused_columns` differs, as the collator needs the
    columns of the chunks.
    """

    ce_weight: float = field(default=0.8, metadata={"help": "Weight of the cross-entropy on the labels (beta)."})
    kl_weight: float = field(default=1.0, metadata={"help": "Weight of the KL from the teacher (gamma)."})
    auxiliary_weight: float = field(default=0.0, metadata={"help": "Weight of the KL from the auxiliary (lambda)."})
    temperature: float = field(default=2.0, metadata={"help": "Temperature of both KL terms (T)."})
    freeze_encoder: bool = field(default=True, metadata={"help": "Train the decoder alone, as the paper does."})
    timestamp_probability: float = field(
        default=0.5, metadata={"help": "How often a label carries timestamps; drawn anew each epoch."}
    )
    previous_text_probability: float = field(
        default=0.2, metadata={"help": "How often the text of the chunk before is given as prompt, where there is one."}
    )
    keep_encoder_states: bool = field(
        default=True,
        metadata={
            "help": "Run a frozen encoder that teacher and student share only once, and keep its states on disk "
            "(float16), where there are several epochs and the disk has room."
        },
    )
    encoder_states_dir: str | None = field(
        default=None, metadata={"help": "Folder of these states; OUTPUT_DIR/encoder_states if null."}
    )
    chunk_weighting: str = field(
        default="hard",
        metadata={"help": "Weight of a chunk in the loss: 'hard' (1) or 'soft' (1 - distance, at least 0)."},
    )
    language: str | None = field(
        default=None, metadata={"help": "Language of chunks that carry none, and of the student by default: 'zh', ..."}
    )
    task: str = field(default="transcribe", metadata={"help": "Whisper's task: 'transcribe' or 'translate'."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: the collator reads the columns of the chunks."}
    )

    def __post_init__(self) -> None:
        """Check our own fields, then let transformers check its.

        Raises:
            K2DError: naming the setting, its value and what it may be.
        """
        for name in ("ce_weight", "kl_weight", "auxiliary_weight"):
            if getattr(self, name) < 0:
                raise K2DError(f"{name} {getattr(self, name)}: must not be negative")
        if self.ce_weight + self.kl_weight + self.auxiliary_weight == 0:
            raise K2DError("ce_weight, kl_weight and auxiliary_weight are all 0: there is nothing to learn from")
        if self.temperature <= 0:
            raise K2DError(f"temperature {self.temperature}: must be above 0")
        for name in ("timestamp_probability", "previous_text_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise K2DError(f"{name} {getattr(self, name)}: must be between 0 and 1")
        if self.chunk_weighting not in CHUNK_WEIGHTINGS:
            raise K2DError(f"chunk_weighting {self.chunk_weighting!r}: choose one of {', '.join(CHUNK_WEIGHTINGS)}")
        if self.remove_unused_columns:
            raise K2DError("remove_unused_columns must be False: the collator reads the columns of the chunks")
        super().__post_init__()
