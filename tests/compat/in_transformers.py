"""Run by the Python of another environment: FOLDER SOUNDS... opens a student there, and prints what it finds as JSON."""

import json
import sys

import numpy as np
import transformers
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, AutoTokenizer, pipeline

SAMPLES = (
    "今天我們要介紹 business model 的基本概念。",
    " In this lecture, isn't it?",
    "<|zh|><|transcribe|><|0.00|>好<|1.00|>",
    "",
)


def main(folder: str, *sounds: str) -> None:
    transformers.logging.set_verbosity_error()
    tokenizers = [AutoTokenizer.from_pretrained(folder, use_fast=fast) for fast in (True, False)]
    processor = AutoProcessor.from_pretrained(folder)
    asr = pipeline("automatic-speech-recognition", model=folder)
    texts, marked, words = [], [], []
    for sound in sounds:
        audio = {"raw": np.load(sound), "sampling_rate": 16000}
        # beams and their number are the pipeline's own affair, which changed between versions
        options = {"generate_kwargs": {"num_beams": 1}}
        texts.append(asr(dict(audio), **options)["text"])
        marked.append(asr(dict(audio), return_timestamps=True, **options)["chunks"])
        words.append(all(word["timestamp"] for word in asr(dict(audio), return_timestamps="word", **options)["chunks"]))
    generation = AutoModelForSpeechSeq2Seq.from_pretrained(folder).generation_config
    found = {
        "versions": {"transformers": transformers.__version__},
        "texts": texts,
        "marked": marked,
        "words": words,
        "language": generation.language,
        "ids": [[one(text).input_ids for text in SAMPLES] for one in tokenizers],
        "special": [sorted(one.all_special_ids) for one in tokenizers],
        "decoded": [one.decode([50364, 2415, 50414], decode_with_timestamps=True) for one in tokenizers],
        "normalised": [one.normalize("The colour isn't grey") for one in tokenizers],
        "features": list(processor(np.zeros(1600), sampling_rate=16000, return_tensors="np").input_features.shape),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
