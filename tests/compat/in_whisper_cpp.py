"""Run by the Python of another environment: FILE SOUNDS... opens a model of whisper.cpp's format."""

import json
import sys
from importlib.metadata import version

import numpy as np
from pywhispercpp.model import Model


def main(file: str, *sounds: str) -> None:
    model = Model(file, redirect_whispercpp_logs_to=None, n_threads=1, print_progress=False)
    texts = []
    for sound in sounds:
        found = model.transcribe(np.load(sound), language="zh", temperature=0.0, temperature_inc=0.0, no_context=True)
        texts.append("".join(segment.text for segment in found))
    print(json.dumps({"versions": {"pywhispercpp": version("pywhispercpp")}, "texts": texts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
