"""`k2d run`: a recipe from beginning to end, or its plan."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import textwrap
from pathlib import Path

from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.processes import process_count
from k2d_hf.files.settings import describe_setting, hints_of, metavar_of, section_of
from k2d_hf.pipeline.command import Command, add_set
from k2d_hf.pipeline.recipe import METHOD, Recipe, load_recipe
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console


class Run(Command):
    """All stages of a recipe."""

    name = "run"
    summary = f"Run every stage of a recipe: {', '.join(METHOD)}."

    def add_arguments(self, parser: CommandParser) -> None:
        """Recipe, changes of it, and where to begin."""
        parser.more_help = recipe_settings
        parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="settings of the run, listed below")
        add_set(parser, "section.key=value")
        first = f"first stage to run again, with those after it: {', '.join(METHOD)}"
        parser.add_argument("--from", dest="from_stage", metavar="STAGE", help=first)
        parser.add_argument("--output", metavar="DIR", help="folder of the results (default: runs/NAME)")
        plan = (
            "the plan alone: stages, sizes, steps, disk, hours, and what is wrong in the settings; no weights are "
            "loaded, nothing is written, and a GPU that this machine lacks is a note"
        )
        parser.add_argument("--dry-run", action="store_true", help=plan)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d run`."""
        if process_count() > 1:
            raise K2DError(
                "k2d run is one process; for several, run its stages as commands, and k2d distil under torchrun"
            )
        output = [f"output={arguments.output}"] if arguments.output else []
        recipe = load_recipe(arguments.recipe, arguments.sets + output, elsewhere=arguments.dry_run)
        if arguments.dry_run:
            from k2d_hf.pipeline.dry_run import plan_run
            from k2d_hf.pipeline.planning.plan_text import render_plan
            from k2d_hf.pipeline.rounds import planned_rounds

            console = Console()
            for each in planned_rounds(recipe):
                console.line(render_plan(plan_run(each, from_stage=arguments.from_stage), console.screen))
            return
        from k2d_hf.pipeline.run import run_recipe

        run_recipe(recipe, from_stage=arguments.from_stage, console=Console(quiet=arguments.quiet))


def recipe_settings() -> str:
    """All settings of a recipe, as the help of `k2d run` lists them: by section, in the width of the terminal."""
    width = max(40, shutil.get_terminal_size().columns - 2)
    help_text = textwrap.TextWrapper(width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines = ["settings of a recipe, and of --set:"]

    def add(field: dataclasses.Field, metavar: str, prefix: str = "") -> None:
        lines.append(f"  {prefix}{field.name} {metavar}")
        lines.extend(help_text.wrap(describe_setting(field, besides=metavar)))

    for field in dataclasses.fields(Recipe):
        hint = hints_of(Recipe)[field.name]
        section = DistillationSettings if field.name == "distil" else section_of(hint)
        if section is None or field.metadata["help"]:
            add(field, metavar_of(field, hint) if section is None else "section")
        for inner in () if section is None else dataclasses.fields(section):
            add(inner, metavar_of(inner, hints_of(section)[inner.name]), f"{field.name}.")
    more = (
        "In distil, every field of transformers' Seq2SeqTrainingArguments is a setting too, such as distil.max_steps, "
        "and so are peft's for adapters (LoRA), such as distil.peft.r."
    )
    return "\n".join([*lines, "", *textwrap.wrap(more, width)])
