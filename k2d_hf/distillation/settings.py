"""The settings of distillation that are our own: the loss (K2D, stage 3), and what a label looks like to the student.

Apart from the Trainer's, and without torch, so that `k2d distil --help` can show them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k2d_hf.settings import documented

CHUNK_WEIGHTINGS = ("hard", "soft")
TASKS = ("transcribe", "translate")


@documented
@dataclass
class DistillationSettings:
    """What `K2DTrainingArguments` adds to the Trainer's arguments; the defaults are the paper's loss."""

    ce_weight: float = field(default=0.8, metadata={"help": "Weight of the cross-entropy on the labels (beta)."})
    kl_weight: float = field(default=1.0, metadata={"help": "Weight of the KL from the teacher (gamma)."})
    auxiliary_weight: float = field(default=0.0, metadata={"help": "Weight of the KL from the auxiliary (lambda)."})
    temperature: float = field(default=2.0, metadata={"help": "Temperature of both KL terms (T)."})
    encoder_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the mean squared distance between the encoder states of student and teacher, for a "
            "trained encoder with fewer layers (freeze_encoder false)."
        },
    )
    freeze_encoder: bool = field(
        default=True, metadata={"help": "Frozen encoder: the decoder alone is trained, as in the paper."}
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Frozen token embedding, which is also the output layer: without the largest gradient of a small "
            "student."
        },
    )
    timestamp_probability: float = field(
        default=0.5, metadata={"help": "Probability of timestamps in a label; drawn anew each epoch."}
    )
    previous_text_probability: float = field(
        default=0.2, metadata={"help": "Probability of the text of the chunk before as prompt, where there is one."}
    )
    full_windows: bool = field(
        default=False,
        metadata={
            "help": "Windows of 30 s from a chunk's start where there are timestamps, as in long-form decoding; the "
            "label then ends with the start of the segment that is cut off, as Whisper's own do."
        },
    )
    keep_encoder_states: bool = field(
        default=True,
        metadata={
            "help": "One pass of a frozen encoder shared with the teacher, its states kept on disk (float16), where "
            "there are several epochs, no auxiliary, and room on the disk."
        },
    )
    encoder_states_dir: str | None = field(
        default=None, metadata={"help": "Folder of these states; null is one beside the checkpoints."}
    )
    group_by_label_length: bool = field(
        default=True,
        metadata={"help": "Batches of labels of like length, as drawn for the epoch; else random ones."},
    )
    shuffle_buffer: int = field(
        default=1000,
        metadata={
            "help": "Chunks of a stream held in memory, from which the next is drawn; 0 is the stream's own order."
        },
    )
    chunk_weighting: str = field(
        default="hard",
        metadata={
            "help": "Weight of a chunk in the loss: hard is 1, soft is 1 - distance, at least 0.",
            "choices": CHUNK_WEIGHTINGS,
        },
    )
    language: str | None = field(
        default=None,
        metadata={
            "help": "Language of chunks that carry none, such as zh, and the student's default.",
            "metavar": "CODE",
        },
    )
    task: str = field(default="transcribe", metadata={"help": "Whisper's task.", "choices": TASKS})
