"""The settings of distillation in a recipe or on the command line: names, types and values, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import check_names, hints_of, read_value
from k2d_hf.formatting import error_message
from k2d_hf.models.languages import checked_language

# Fields of K2DTrainingArguments that the stage sets itself.
MANAGED = ("output_dir", "resume_from_checkpoint", "remove_unused_columns", "logging_dir", "push_to_hub", "do_train")


def read_distil(values: Mapping[str, Any], *, where: str, section: str = "", elsewhere: bool = False) -> dict[str, Any]:
    """Settings of distillation with names, types and values checked against `K2DTrainingArguments` and peft's LoRA.

    Where it is to be run `elsewhere`, it may ask for what a GPU alone can do, such as bf16.

    Raises:
        K2DError: naming key and file.
    """
    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.rehearsal import on_any_machine

    key = f"{section}." if section else ""
    for name in MANAGED:
        if name in values:
            raise K2DError(f"{where}: {key}{name}: this one is set by k2d itself; leave it out")
    fields = {field.name for field in dataclasses.fields(K2DTrainingArguments) if field.init}
    check_names(values, sorted({*fields, "peft"}), where=where, section=section)
    hints = {**hints_of(K2DTrainingArguments), "peft": dict[str, Any] | None}
    read = {name: read_value(value, hints[name], where=where, key=key + name) for name, value in values.items()}
    if read.get("peft"):
        from peft import LoraConfig

        lora = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
        check_names(read["peft"], lora, where=where, section=f"{key}peft")
    given = {name: value for name, value in read.items() if name != "peft"}
    made = on_any_machine(given) if elsewhere else given
    if fault := _fault(made):
        alone = (name for name in made if name not in fault and _fault({"use_cpu": elsewhere, name: made[name]}))
        named_by = "".join(f" ({name})" for name in [next(alone, "")] if name)
        raise K2DError(f"{where}: {section or 'settings'}: {fault}{named_by}")
    if "language" in read:
        read["language"] = language_of_setting(read["language"], where=f"{where}: {key}language")
    return read


def _fault(given: Mapping[str, Any]) -> str | None:
    """What is wrong with arguments of the Trainer, in one line; None if nothing is."""
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    try:
        K2DTrainingArguments(output_dir="unused", **given)
    except Exception as error:  # of three libraries, which look at some values without asking for their kind
        return error_message(error)
    return None


def language_of_setting(language: str | None, *, where: str) -> str | None:
    """Whisper's code of a language that a setting names."""
    try:
        return checked_language(language)
    except K2DError as error:
        raise K2DError(f"{where}: {str(error).removeprefix('language ')}") from None
