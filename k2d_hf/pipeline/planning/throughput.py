"""How long each stage takes: a table of measured throughputs, scaled by the size of the model.

Decoding reads all weights for every token, so its time is taken to grow with the parameters; forward and backward
passes with the operations. Both hold within a factor of two or three: engines, batches and speech differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from k2d_hf.models.shapes import WhisperShape

LABEL_TOKENS = 120  # of a chunk, timestamps and prompt included; the quickstart's labels have 90 to 150
CHUNK_SPEECH = 26.6  # seconds of recording a chunk, pauses included: the quickstart's 16.4 minutes make 37
ONE_BY_ONE = 2.0  # decoding a recording at a time against batches of 8: 0.101 against 0.050 in the quickstart
CAVEAT = (
    "scaled from the quickstart on two CPU cores and, for a GPU, from public figures: decoding on a V100 "
    "(faster-whisper), training on an H100 (arXiv 2407.10603); expect a factor of two or three either way"
)


@dataclass(frozen=True)
class Throughput:
    """What a machine does."""

    name: str
    beam: float  # seconds of work a second of audio and a million parameters, beam 5, batches of 8
    greedy: float  # likewise with one beam
    operations: float  # floating-point operations a second in forward and backward passes


# One core, measured on the quickstart with two: labelling 984 s of audio 49 s (int8), checking 26 s, 434 chunks
# through a student of 4 layers 125 s (float32).
CPU_CORE = Throughput("CPU core", beam=1.4e-3, greedy=7.3e-4, operations=5e10)
# Decoding: large-v2 of 1,543 M parameters, 13 minutes in 54 s, beam 5, float16 (README of faster-whisper, V100).
# Training: 120,000 steps of 256 chunks in 42 h on four H100 (paper), which is 1.3e14 by the count below.
GPU = Throughput("one GPU", beam=4.5e-5, greedy=2.3e-5, operations=1.3e14)


def cores(count: int) -> Throughput:
    """Some CPU cores; beyond eight, models of this size gain little."""
    used = min(count, 8)
    name = f"{count} CPU core{'s' if count > 1 else ''}"
    return Throughput(name, CPU_CORE.beam / used, CPU_CORE.greedy / used, used * CPU_CORE.operations)


def decoding_seconds(machine: Throughput, shape: WhisperShape, audio_seconds: float, *, beam_size: int) -> float:
    """Seconds to transcribe some audio, in batches."""
    factor = machine.greedy if beam_size == 1 else machine.beam * beam_size / 5
    return audio_seconds * factor * shape.parameters / 1e6


def encoder_operations(shape: WhisperShape) -> float:
    """Operations of one chunk through the encoder: two a weight and frame, and attention of each frame to each."""
    return shape.frames * (2 * shape.encoder_parameters + 4 * shape.frames * shape.d_model * shape.encoder_layers)


def decoder_operations(shape: WhisperShape) -> float:
    """Operations of one label through the decoder."""
    return LABEL_TOKENS * 2 * shape.decoder_parameters


def training_operations(
    student: WhisperShape, teacher: WhisperShape | None, *, encoder_passes: float, encoder_trains: bool
) -> float:
    """Operations of one chunk in one step: a backward pass costs two forward passes.

    Args:
        student: its shape.
        teacher: that of the teacher, where it runs in every step.
        encoder_passes: how often an encoder runs for it; 0 where its states are kept.
        encoder_trains: whether the student's encoder does.
    """
    total = 3 * decoder_operations(student) + encoder_passes * encoder_operations(student)
    total += 2 * encoder_operations(student) if encoder_trains else 0
    return total + (decoder_operations(teacher) if teacher is not None else 0)
