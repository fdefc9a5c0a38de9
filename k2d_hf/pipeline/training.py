"""What soft targets and training share: the Trainer's arguments and options, adapters, and the chunks to train on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import check_chunks, load_chunks
from k2d_hf.data.utterances import are_utterances
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import hints_of, takes_list
from k2d_hf.pipeline.command import part_of_run

if TYPE_CHECKING:
    from k2d_hf.distillation.arguments import K2DTrainingArguments


def training_arguments(
    settings: Mapping[str, Any], checkpoints: Path, *, resume: Path, language: str | None
) -> K2DTrainingArguments:
    """The Trainer's settings: ours where the recipe has none."""
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    given = {name: value for name, value in settings.items() if name != "peft"}
    defaults = {
        "report_to": "none",
        "save_total_limit": 2,  # a complete one stays while the next is written
        "logging_steps": 10,
        "logging_first_step": True,
        "disable_tqdm": True,
        "encoder_states_dir": str(resume / "encoder-states"),
    }
    return K2DTrainingArguments(output_dir=str(checkpoints), **{**defaults, "language": language, **given})


def peft_config(settings: Mapping[str, Any] | None) -> Any:
    """The adapters that a recipe's `distil.peft` asks for; None without."""
    if not settings:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **settings})


def add_trainer_options(parser: argparse.ArgumentParser) -> None:
    """Offer each field of `K2DTrainingArguments` that is no option of `parser` yet, as transformers' own scripts do.

    What is given is text, or a list. `--bf16` alone is true; `--no-dataloader-pin-memory` is false, of a field that is
    true by default. Help does not list the hundred and more of them, and they take transformers to be known: only a
    command line with an option that is not among the listed ones asks for them.
    """
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    hints = hints_of(K2DTrainingArguments)
    known = parser._option_string_actions
    for field in dataclasses.fields(K2DTrainingArguments):
        name = field.name.replace("_", "-")
        hidden: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        switch = hints[field.name] is bool
        if f"--{name}" not in known:
            many = "+" if takes_list(hints[field.name], text=False) else None
            values: dict[str, Any] = {"nargs": "?", "const": "true"} if switch else {"nargs": many}
            parser.add_argument(f"--{name}", **values, **hidden)
        if switch and field.default is True and f"--no-{name}" not in known:
            parser.add_argument(f"--no-{name}", action="store_const", const="false", **hidden)


def add_unvalidated(parser: argparse.ArgumentParser) -> None:
    """The option --unvalidated."""
    text = "take chunks that k2d validate never saw, all of them"
    parser.add_argument("--unvalidated", action="store_true", help=text)


def training_chunks(arguments: argparse.Namespace, *parts: str) -> Path:
    """The folder of chunks to train on, `validated` of the command or the first of these parts of a run.

    Raises:
        K2DError: for chunks that are not validated, unless the user takes them, or no chunks at all.
    """
    folder = part_of_run(Path(arguments.validated), *parts)
    chunks = load_chunks(folder)
    check_chunks(chunks, folder)
    names = chunks.column_names
    if "keep" not in names and not arguments.unvalidated and not are_utterances(names):
        raise K2DError(
            f"{folder}: nobody validated these {len(chunks)} chunks (no column keep): give what `k2d validate` makes "
            "of them, or say --unvalidated to take all"
        )
    return folder
