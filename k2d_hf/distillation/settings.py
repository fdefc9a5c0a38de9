"""The settings of distillation that are our own: the loss (K2D, stage 3), and what a label looks like to the student.

Apart from the Trainer's, and without torch, so that `k2d distil --help` can show them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
            "help": "Weight of the mean squared distance between the encoder states of student and teacher: for a "
            "student whose encoder has lost layers and is trained (freeze_encoder false)."
        },
    )
    freeze_encoder: bool = field(default=True, metadata={"help": "Train the decoder alone, as the paper does."})
    freeze_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Leave the token embedding, which is also the output layer, as it is: the largest gradient of a "
            "small student is not formed."
        },
    )
    timestamp_probability: float = field(
        default=0.5, metadata={"help": "How often a label carries timestamps; drawn anew each epoch."}
    )
    previous_text_probability: float = field(
        default=0.2, metadata={"help": "How often the text of the chunk before is given as prompt, where there is one."}
    )
    full_windows: bool = field(
        default=False,
        metadata={
            "help": "With timestamps, hear the whole 30 s from a chunk's start, as in long-form decoding; the label "
            "then ends with the start of the segment that is cut off, as Whisper's own do."
        },
    )
    keep_encoder_states: bool = field(
        default=True,
        metadata={
            "help": "Run a frozen encoder that teacher and student share only once, and keep its states on disk "
            "(float16), where there are several epochs, no auxiliary, and the disk has room."
        },
    )
    encoder_states_dir: str | None = field(
        default=None, metadata={"help": "Folder of these states; OUTPUT_DIR/_encoder_states if null."}
    )
    group_by_label_length: bool = field(
        default=True,
        metadata={"help": "Put labels of like length into a batch, as drawn for the epoch; else batches are random."},
    )
    shuffle_buffer: int = field(
        default=1000,
        metadata={
            "help": "Chunks of a stream that are held, and from which the next is drawn; 0: in the order of the stream."
        },
    )
    chunk_weighting: str = field(
        default="hard",
        metadata={"help": "Weight of a chunk in the loss: 'hard' (1) or 'soft' (1 - distance, at least 0)."},
    )
    language: str | None = field(
        default=None, metadata={"help": "Language of chunks that carry none, and of the student by default: 'zh', ..."}
    )
    task: str = field(default="transcribe", metadata={"help": "Whisper's task: 'transcribe' or 'translate'."})
