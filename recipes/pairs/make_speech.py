"""Write synthetic speech in two languages, with references, by espeak-ng (extra `espeak`); a minute, no network.

    python recipes/pairs/make_speech.py pairs-speech    # what es_en.yaml and hi_en.yaml learn from

Each text is read in sentences of one voice; what stands in brackets is read as English. Voices of training and of the
development set differ, as do the sentences.
"""

import argparse
import ctypes
import json
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr

try:
    import espeakng_loader
except ImportError:
    raise SystemExit("make_speech.py takes espeak-ng: pip install espeakng-loader") from None

HERE = Path(__file__).parent
PAIRS = {"es_en": ("es", "en-us"), "hi_en": ("hi", "en-us")}  # languages of espeak-ng
VOICES = {  # variants of its voices, each with words a minute and pitch
    "train": [("m3", 150, 45), ("f2", 140, 55), ("m7", 160, 40), ("f4", 150, 60)],
    "dev": [("f3", 150, 50)],
}
READINGS = 2  # of each sentence, by different voices, in training
RATE = 16_000  # Hz
GAP = 0.5  # s between two sentences, and before the first
JOINT = 0.04  # s of silence that is left at each end of a stretch of one language
SYNCHRONOUS, UTF8, AUDIBLE = 2, 1, 60
WORDS_A_MINUTE, PITCH = 1, 3  # parameters of espeak-ng

Voice = tuple[str, int, int]
_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """espeak-ng's library, of which a process has one."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        self._parts: list[np.ndarray] = []
        self._heard = _Heard(self._take)  # kept, for the library calls it
        self._library.espeak_SetSynthCallback(self._heard)

    def _take(self, samples, count: int, events) -> int:
        if count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / (1 << 15))
        return 0

    def say(self, text: str, language: str, voice: Voice) -> np.ndarray:
        """Sound of a text, 16 kHz [samples], with little silence at its ends."""
        variant, words, pitch = voice
        if self._library.espeak_SetVoiceByName(f"{language}+{variant}".encode()):
            raise SystemExit(f"espeak-ng has no voice {language}+{variant}")
        self._library.espeak_SetParameter(WORDS_A_MINUTE, words, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        self._parts, written = [], text.encode() + b"\0"
        self._library.espeak_Synth(written, len(written), 0, 0, 0, UTF8, None, None)
        sound = np.concatenate(self._parts)
        loud = np.flatnonzero(np.abs(sound) > AUDIBLE / (1 << 15))
        edge = round(JOINT * self._rate)
        return soxr.resample(sound[max(0, loud[0] - edge) : loud[-1] + edge], self._rate, RATE)


def sentences_of(file: Path) -> dict[str, list[str]]:
    """The sentences of each part of a text, by its heading."""
    parts: dict[str, list[str]] = {}
    for line in filter(None, file.read_text(encoding="utf-8").splitlines()):
        if line.startswith("# "):
            parts[line[2:]] = []
        else:
            parts[next(reversed(parts))].append(line)
    return parts


def read_sentence(speaker: Speaker, sentence: str, languages: tuple[str, str], voice: Voice) -> np.ndarray:
    """Sound of a sentence, each stretch in its language."""
    return np.concatenate(
        [speaker.say(one.strip("[]"), languages[one.startswith("[")], voice) for one in stretches_of(sentence)]
    )


def stretches_of(sentence: str) -> list[str]:
    """The stretches of a sentence, those that are English in their brackets."""
    return [stretch for stretch in re.split(r"(\[.*?\])", sentence) if re.search(r"\w", stretch)]


def write_part(speaker: Speaker, folder: Path, pair: str, part: str, sentences: list[str]) -> float:
    """Write the recordings of a part, one a voice, and its manifests; returns its length in seconds."""
    voices, rows = VOICES[part], []
    (folder / part).mkdir(parents=True, exist_ok=True)
    for index, voice in enumerate(voices):
        chosen = [s for at, s in enumerate(sentences) if (index - at) % len(voices) < READINGS]
        sound, segments = [np.zeros(round(GAP * RATE), np.float32)], []
        for sentence in chosen:
            start = sum(map(len, sound)) / RATE
            sound += [read_sentence(speaker, sentence, PAIRS[pair], voice), np.zeros(round(GAP * RATE), np.float32)]
            end = sum(map(len, sound[:-1])) / RATE
            text = re.sub(r"[\[\]]", "", sentence)
            segments.append({"start": round(start, 2), "end": round(end, 2), "text": text})
        path, samples = f"{part}/{part}_{voice[0]}.opus", np.concatenate(sound)
        soundfile.write(folder / path, samples, RATE, format="OGG", subtype="OPUS")
        rows.append({"audio": path, "duration": round(len(samples) / RATE, 2), "segments": segments})
    write_manifest(folder / f"{part}.jsonl", rows if part == "dev" else [{"audio": row["audio"]} for row in rows])
    if part == "train":
        write_manifest(folder / "train_references.jsonl", rows)
    return sum(row["duration"] for row in rows)


def write_manifest(file: Path, rows: list[dict]) -> None:
    """Write rows as JSONL."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write both pairs, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--pair", action="append", choices=PAIRS, help="only this pair (may be repeated)")
    arguments = parser.parse_args()
    speaker = Speaker()
    for pair in arguments.pair or PAIRS:
        for part, sentences in sentences_of(HERE / f"{pair}.txt").items():
            seconds = write_part(speaker, arguments.out / pair, pair, part, sentences)
            print(f"{pair} {part}: {len(sentences)} sentences, {seconds / 60:.1f} min")


if __name__ == "__main__":
    main()
