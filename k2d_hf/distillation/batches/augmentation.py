"""Disturbed audio for the student, as in noisy-student training: label and soft targets are of the clean audio.

Speed, room, noise, telephone band and gain change the audio, masks (SpecAugment, arXiv 1904.08779) its features. Each
is drawn on its own, from a seed that names copy and chunk, so that it is the same whatever the batch or the worker.
"""

from __future__ import annotations

import hashlib

import numpy as np
import soxr

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

VERSION = "augmentation 1"  # of what a seed gives: states on disk are known by it
DISTURBED = "_disturbed"  # column of an input: the seed of what disturbs it, and whether its times must stay true
EACH = 0.5  # probability of each kind, once an input is disturbed
SPEED = (0.9, 1.1)
REVERBERATION = (0.15, 0.7)  # s until it is 60 dB lower
DIRECT = (3.0, 15.0)  # dB of direct sound over reverberation
SIGNAL_TO_NOISE = (5.0, 30.0)  # dB
TELEPHONE = (300.0, 3400.0)  # Hz
GAIN = (-12.0, 6.0)  # dB
MASKS = 2  # of each axis
MASKED_FRAMES, MASKED_BINS = 100, 0.15  # at most: frames of 10 ms, and a share of the mel bins


def disturb(audio: np.ndarray, seed: str, *, keep_times: bool) -> np.ndarray:
    """Disturbed audio, float32 [samples] at 16 kHz, within -1 and 1; its speed stays where timestamps must be true."""
    if not audio.any():
        return audio
    draw = _generator(seed)
    kinds = draw.random(5) < EACH
    amounts = [draw.uniform(*bounds) for bounds in (SPEED, REVERBERATION, DIRECT, SIGNAL_TO_NOISE, GAIN)]
    speed, reverberation, direct, signal_to_noise, gain = amounts
    if kinds[0] and not keep_times and len(audio) / speed <= CHUNK_SECONDS * SAMPLE_RATE:
        audio = soxr.resample(audio, SAMPLE_RATE * speed, SAMPLE_RATE)
    if kinds[1]:
        audio = _in_room(audio, reverberation, direct, draw)
    if kinds[2]:
        noise = draw.standard_normal(len(audio), dtype=np.float32)
        audio = audio + noise * np.float32(_loudness(audio) * 10 ** (-signal_to_noise / 20))
    if kinds[3]:
        audio = _band(audio, *TELEPHONE)
    if kinds[4]:
        audio = audio * np.float32(10 ** (gain / 20))
    return np.clip(audio, -1, 1).astype(np.float32)


def mask(features: np.ndarray, seed: str) -> np.ndarray:
    """A copy of log-mel features [mel bins, frames] with some frames and some mel bins at their mean."""
    draw, masked = _generator(f"{seed} masks"), features.copy()
    bins, frames = features.shape
    mean = features.mean()
    for _ in range(MASKS):
        if draw.random() < EACH:
            width, start = draw.integers(0, MASKED_FRAMES + 1), draw.integers(0, frames)
            masked[:, start : start + width] = mean
        if draw.random() < EACH:
            width, start = draw.integers(0, int(MASKED_BINS * bins) + 1), draw.integers(0, bins)
            masked[start : start + width] = mean
    return masked


def _generator(seed: str) -> np.random.Generator:
    digest = hashlib.sha256(seed.encode(errors="surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _loudness(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if len(audio) else 0.0


def _in_room(audio: np.ndarray, seconds: float, direct: float, draw: np.random.Generator) -> np.ndarray:
    """Direct sound and a tail of noise that falls by 60 dB in so many seconds, as loud as before."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = draw.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    response *= 10 ** (-direct / 20) / np.sqrt(np.square(response).sum())
    response[0] = 1.0
    size = len(audio) + len(response)
    reverberant = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)]
    return (reverberant * (_loudness(audio) / max(_loudness(reverberant), 1e-9))).astype(np.float32)


def _band(audio: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """What a band of frequencies, in Hz, lets through."""
    spectrum = np.fft.rfft(audio)
    frequencies = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    spectrum[(frequencies < lowest) | (frequencies > highest)] = 0
    return np.fft.irfft(spectrum, len(audio)).astype(np.float32)
