"""Fixtures for distillation: chunks of code-switched text over noise, as labelling and validation would give them."""

import pytest
from datasets import Dataset

TEXTS = [
    ["今天我們來看 attention", " 的 mechanism 是怎麼運作的"],
    ["這個 model"],
    ["所以 loss function 要怎麼設計呢", " 我們先看 cross entropy", " 再看 KL divergence"],
    ["然後呢"],
    ["Let us look at the encoder first", " 它把 spectrogram 變成 hidden states"],
    ["對", " OK"],
    ["我們用 GPU 來 train 一個 student", " 大概要三天"],
    ["這就是 knowledge distillation"],
]


@pytest.fixture(scope="session")
def chunks(noise_file) -> Dataset:
    """Eight chunks of one recording, 3 to 6.5 s long, with labels of different lengths; the first has none before it."""
    rows, previous = [], None
    for index, texts in enumerate(TEXTS):
        length = 1.0 + 0.5 * len(texts)
        segments = [{"start": i * length, "end": (i + 1) * length, "text": text} for i, text in enumerate(texts)]
        text = "".join(texts)
        rows.append(
            {
                "recording": str(noise_file),
                "start": 7.0 * index,
                "duration": segments[-1]["end"],
                "segments": segments,
                "text": text,
                "previous_text": previous,
                "language": "zh",
                "distance": 0.1 * index,
                "keep": True,
            }
        )
        previous = text
    return Dataset.from_list(rows)
