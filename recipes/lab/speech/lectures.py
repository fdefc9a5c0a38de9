"""Plans and sounds of a synthetic lecture: sentences, pauses, gaps, tone beds, fillers, a room and noise.

A lecture is one voice that switches between Mandarin and English inside sentences; between them is what makes Whisper
loop or drift, and `Scene` says how often. Everything random comes from one `random.Random`.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

RATE = 16_000
"""Sampling rate of what is written, in Hz."""

HERE = Path(__file__).parent
TOPICS: dict[str, list[str]] = json.loads((HERE / "topics.json").read_text(encoding="utf-8"))
FRAMES = (HERE / "frames.txt").read_text(encoding="utf-8").splitlines()
FILLERS = ["OK OK OK OK。", "對對對對對。", "嗯，就是，就是，就是說。", "好，好，好，那。"]
DIGITS = "一二三四五六七八九"

Draw = Callable[[Random], str]
Speak = Callable[[str, str, float], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """How often a lecture holds what Whisper stumbles over: chances per sentence, signal to noise in dB, pace."""

    gaps: float = 0.04
    tones: float = 0.03
    fillers: float = 0.05
    quietest: float = 8.0
    loudest: float = 30.0
    slowest: float = 0.9
    fastest: float = 1.2


SCENES = {"lecture": Scene(), "hard": Scene(gaps=0.08, tones=0.07, fillers=0.10, quietest=2.0, loudest=18.0)}


def lecture_sentences(topic: str, subjects: dict[str, list[str]] = TOPICS, frames: list[str] = FRAMES) -> Draw:
    """Sentences of one subject: a frame, its two terms and a number."""

    def draw(random: Random) -> str:
        first, second = random.sample(subjects[topic], 2)
        number = DIGITS[random.randrange(1, 9)] + "十" + DIGITS[random.randrange(9)]
        return random.choice(frames).format(a=first, b=second, n=number)

    return draw


@cache
def everyday_sentences() -> Draw:
    """Everyday Mandarin with words swapped for their English gloss (package `hsk-sentences-audio`, CC-BY-SA-4.0)."""
    import hsk_sentences_audio
    import opencc

    file = Path(hsk_sentences_audio.__file__).parent / "data" / "sentences.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    traditional = opencc.OpenCC("s2twp").convert

    def gloss(token: dict) -> str | None:
        text = (
            re.sub(r"\([^)]*\)", "", token["gloss_en"]).split(";")[0].split(",")[0].strip().removeprefix("to ").strip()
        )
        plain = len(token["word"]) > 1 and re.fullmatch(r"[A-Za-z][A-Za-z' -]*", text) and len(text.split()) <= 2
        return text if plain else None

    def sentence(random: Random) -> str:
        row = random.choice(rows)
        if random.random() < 0.15:
            return row["translation"]["en"]
        swappable = [index for index, token in enumerate(row["tokens"]) if gloss(token)]
        swapped = set(random.sample(swappable, min(len(swappable), random.choice([0, 1, 1, 2]))))
        words = (
            f" {gloss(token)} " if index in swapped else token["word"] for index, token in enumerate(row["tokens"])
        )
        return traditional(re.sub(r" +", " ", "".join(words)).strip() + "。")

    return sentence


def room(sound: np.ndarray, random: Random) -> np.ndarray:
    """`sound` with the echo of a room whose reverberation lasts 0.1 to 0.5 s."""
    length = int(random.uniform(0.1, 0.5) * RATE)
    noise = np.random.default_rng(random.randrange(1 << 30)).standard_normal(length)
    echo = noise * np.exp(-6.9 * np.arange(length) / length)
    echo[0] = 0
    echo *= random.uniform(0.05, 0.25) / np.sqrt((echo**2).sum() + 1e-9)
    echo[0] = 1
    size = 1 << (len(sound) + len(echo) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size), size)[: len(sound)]


def tone_bed(random: Random) -> np.ndarray:
    """4 to 9 s of a chord that swells and fades."""
    length = int(RATE * random.uniform(4, 9))
    time, pitch = np.arange(length) / RATE, random.choice([220, 262, 330])
    chord = sum(np.sin(2 * np.pi * pitch * part * time + part) for part in (1, 1.25, 1.5))
    return 0.08 * chord * np.hanning(length)


def lecture(
    random: Random, scene: Scene, draw: Draw, speak: Speak, voice: str, seconds: float
) -> tuple[np.ndarray, list[dict], float]:
    """Sound (float32, `RATE` Hz), segments (`start`, `end` in s, `text`) and signal to noise in dB."""
    parts: list[np.ndarray] = []
    segments: list[dict] = []
    pace, time = random.uniform(scene.slowest, scene.fastest), 0.0
    noise_source = np.random.default_rng(random.randrange(1 << 30))
    while time < seconds:
        text = random.choice(FILLERS) if random.random() < scene.fillers else draw(random)
        sound = speak(text, voice, pace * random.uniform(0.95, 1.05))
        sound = sound / (np.abs(sound).max() + 1e-6) * random.uniform(0.3, 0.7)
        end = time + len(sound) / RATE
        segments.append({"start": round(time, 2), "end": round(end, 2), "text": text})
        chance = random.random()
        if chance < scene.gaps:
            pause = np.zeros(int(RATE * random.uniform(6, 16)))
        elif chance < scene.gaps + scene.tones:
            pause = tone_bed(random)
        else:
            pause = np.zeros(int(RATE * random.uniform(0.15, 1.2)))
        parts += [sound, pause]
        time = end + len(pause) / RATE
    sound = room(np.concatenate(parts), random)
    ratio = random.uniform(scene.quietest, scene.loudest)
    noise = np.convolve(noise_source.standard_normal(len(sound)), np.exp(-np.arange(64) / 12.0))[: len(sound)]
    sound = sound + noise * np.sqrt((sound**2).mean() / (noise**2).mean()) * 10 ** (-ratio / 20)
    return (0.9 * sound / max(1.0, np.abs(sound).max())).astype(np.float32), segments, ratio
