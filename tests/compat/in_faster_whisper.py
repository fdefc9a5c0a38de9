"""Run by the Python of another environment: FOLDER SOUNDS... opens what CTranslate2's own converter made."""

import json
import sys
from importlib.metadata import version

import numpy as np
from faster_whisper import WhisperModel


def main(folder: str, *sounds: str) -> None:
    model = WhisperModel(folder, device="cpu", compute_type="float32", local_files_only=True)
    texts = []
    for sound in sounds:
        segments, _ = model.transcribe(np.load(sound), language="zh", beam_size=1, temperature=0.0)
        texts.append("".join(segment.text for segment in segments))
    names = ("ctranslate2", "faster-whisper", "transformers")
    print(json.dumps({"versions": {name: version(name) for name in names}, "texts": texts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
