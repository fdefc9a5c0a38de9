"""Write synthetic Mandarin-English lectures with references: recordings and a manifest a split.

    python make_speech.py lab-speech                       # every split of splits.json
    python make_speech.py lab-speech --split dev-broad

Splits are joined to what is trained on and what is measured, such as `train.jsonl` and `dev.jsonl`, once all of theirs
are there.

Recordings that are there already are passed over, so a run that was stopped goes on where it was.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import soundfile
from lectures import HERE, RATE, SCENES, TOPICS, everyday_sentences, lecture, lecture_sentences

DEV = HERE.parent / "dev" / "dev.jsonl"
JOINED = {
    "repair": ["repair-lecture", "repair-hard", "repair-broad"],  # with its texts, for the auxiliary alone
    "train": ["train-lecture", "train-lecture-more", "train-hard", "train-broad"],
    "dev": ["dev-hard", "dev-broad"],  # and the three lectures that lie here
    "dev-more": ["dev-more-lecture", "dev-more-hard", "dev-more-broad"],  # for the auxiliary: dev has few bad labels
}
SPLITS: dict[str, dict] = json.loads((HERE / "splits.json").read_text(encoding="utf-8"))


def main() -> None:
    """Make what is asked for, a process a core, then write the manifests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--split", action="append", choices=SPLITS, help="only this split (may be repeated)")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    names = arguments.split or list(SPLITS)
    wanted = [(name, index) for name in names for index in range(SPLITS[name]["recordings"])]
    with ProcessPoolExecutor(1) as first:  # the package unpacks its model on first use, where two would collide
        first.submit(unpack_model).result()
    with ProcessPoolExecutor(arguments.workers) as pool:
        for line in pool.map(partial(make_recording, arguments.out), wanted):
            print(line, flush=True)
    for name in names:
        rows = [row_file(arguments.out, name, index) for index in range(SPLITS[name]["recordings"])]
        write_manifest(arguments.out / f"{name}.jsonl", [(row, arguments.out) for row in rows])
    for joined, parts in JOINED.items():
        sources = [DEV] if joined == "dev" else []
        sources += [arguments.out / f"{part}.jsonl" for part in parts]
        if all(source.exists() for source in sources):
            write_manifest(arguments.out / f"{joined}.jsonl", [(source, source.parent) for source in sources])


def write_manifest(path: Path, sources: list[tuple[Path, Path]]) -> None:
    """Join the rows of some files, each with the folder that its audio is named from."""
    rows = []
    for source, folder in sources:
        for line in source.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append({**row, "audio": os.path.relpath(folder / row["audio"], path.parent)})
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def row_file(out: Path, split: str, index: int) -> Path:
    """Where a recording's line of the manifest lies; it is written last, so it says that the recording is whole."""
    return out / split / f"{split}_{index:03d}.json"


def unpack_model() -> None:
    """See to it that the voices' model lies where their package looks for it."""
    from voices import kokoro

    kokoro.model_path()


def make_recording(out: Path, wanted: tuple[str, int]) -> str:
    """Write one recording and its line, unless they are there."""
    from voices import VOICES, speak

    split, index = wanted
    row_path = row_file(out, split, index)
    if row_path.exists():
        return f"{row_path.stem} is there"
    plan = SPLITS[split]
    random = Random(plan["seed"] * 1000 + index)
    topic, voice = random.choice(list(TOPICS)), random.choice(VOICES)
    draw = everyday_sentences() if plan["text"] == "everyday" else lecture_sentences(topic)
    sound, segments, ratio = lecture(random, SCENES[plan["scene"]], draw, speak, voice, 60 * plan["minutes"])
    sound_path = row_path.with_suffix(".opus")
    sound_path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(sound_path, sound, RATE, format="OGG", subtype="OPUS")
    row = {
        "id": row_path.stem,
        "audio": f"{split}/{sound_path.name}",
        "duration": round(len(sound) / RATE, 2),
        "topic": "everyday" if plan["text"] == "everyday" else topic,
        "voice": voice,
        "snr_db": round(ratio, 1),
        "segments": segments,
    }
    row_path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"{row['id']}: {row['duration']:.0f} s, {voice}, {ratio:.0f} dB, {len(segments)} sentences"


if __name__ == "__main__":
    main()
