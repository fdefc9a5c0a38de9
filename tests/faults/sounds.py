"""Recordings that differ, and a tiny Whisper that hears the difference: a mixed-up row shows in the text."""

from pathlib import Path

import numpy as np
import soundfile
from scripted_whisper import write_scripted_whisper

RATE = 16_000  # Hz
VOCABULARY = [
    " the",
    " model",
    " can",
    " hear",
    " this",
    " word",
    " and",
    " then",
    " we",
    " train",
    " small",
    " one",
    " on",
] + list("今天用很多數")
LOUDNESS = 2.0  # of the script, next to that of what the model hears


def melody(seed, seconds):
    """Tones that change twice a second, with some noise: float32 [samples] at 16 kHz."""
    random = np.random.default_rng(seed)
    pitches = np.repeat(random.uniform(80, 6000, 2 * int(seconds) + 2), RATE // 2)[: int(seconds * RATE)]
    loudness = np.repeat(random.uniform(0.02, 0.4, 2 * int(seconds) + 2), RATE // 2)[: int(seconds * RATE)]
    tone = np.sin(2 * np.pi * np.cumsum(pitches) / RATE)
    return (loudness * tone + 0.01 * random.standard_normal(len(tone))).astype(np.float32)


def write_recordings(folder, lengths, *, seed=0):
    """Files `00.wav`, `01.wav`, ... of these lengths in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, seconds in enumerate(lengths):
        soundfile.write(folder / f"{index:02}.wav", melody(1000 * seed + index, seconds), RATE)
    return folder


def write_listening_whisper(folder: Path, processor, *, seed=0, words=8, hearing=0.08) -> Path:
    """A Whisper that writes two segments in every 30 s, of so many words each; which of two in each place, it hears."""
    import torch
    from transformers import WhisperForConditionalGeneration

    (letter,) = processor.tokenizer.encode(" a", add_special_tokens=False)
    write_scripted_whisper(folder, processor, (12.0, " a" * words), (26.0, " a" * words), seed=seed)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    decoder = model.model.decoder
    words_known = {token for word in VOCABULARY for token in processor.tokenizer.encode(word, add_special_tokens=False)}
    vocabulary = torch.tensor(sorted(words_known))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tokens, places = decoder.embed_tokens.weight, decoder.embed_positions.weight
        script = (places @ tokens.T).argmax(-1)
        places *= LOUDNESS
        for place in (script == letter).nonzero().flatten().tolist():
            either = tokens[vocabulary[torch.randperm(len(vocabulary), generator=random)[:2]]].mean(0)
            places[place] = places[place].norm() * either / either.norm()
        hears = decoder.layers[-1].encoder_attn.out_proj.weight
        hears.copy_(hearing * torch.randn(hears.shape, generator=random))
    model.save_pretrained(folder)
    return folder
