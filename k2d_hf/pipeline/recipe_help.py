"""The settings of a recipe, as `k2d run --help` lists them."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap

from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.files.settings import describe_setting, hints_of, metavar_of, section_of
from k2d_hf.pipeline.recipe import Recipe


def recipe_settings() -> str:
    """All settings of a recipe, as the help of `k2d run` lists them: by section, in the width of the terminal."""
    hints = hints_of(Recipe)
    sections = {name: section_of(hint) for name, hint in hints.items()}
    sections["distil"] = DistillationSettings
    lines = ["settings of a recipe, and of --set:"]
    for field in dataclasses.fields(Recipe):
        section = sections[field.name]
        if section is None or field.metadata["help"]:
            lines += _listed(field, "section" if section is not None else metavar_of(field, hints[field.name]))
        of_section = hints_of(section) if section is not None else {}
        for inner in dataclasses.fields(section) if section is not None else ():
            lines += _listed(inner, metavar_of(inner, of_section[inner.name]), prefix=f"{field.name}.")
    more = (
        "In distil, every field of transformers' Seq2SeqTrainingArguments is a setting too, such as distil.max_steps, "
        "and so are peft's for adapters (LoRA), such as distil.peft.r."
    )
    return "\n".join([*lines, "", *textwrap.wrap(more, _width())])


def _listed(field: dataclasses.Field, metavar: str, *, prefix: str = "") -> list[str]:
    indent, text = " " * 6, describe_setting(field, besides=metavar)
    return [
        f"  {prefix}{field.name} {metavar}",
        *textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent),
    ]


def _width() -> int:
    return max(40, shutil.get_terminal_size().columns - 2)
