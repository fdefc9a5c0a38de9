"""The end: student, and chunks where a repository for them is named, go to the Hub."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import write_json
from k2d_hf.files.settings import deciding
from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2_FORMAT
from k2d_hf.pipeline import command
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.publishing.card_names import public_name, teacher_name
from k2d_hf.publishing.hub import PushResult, check_repo_id, check_revision, open_destination, push_data, push_student
from k2d_hf.publishing.settings import HubSettings
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.validation.combining import describe_validation


class Push(Stage, command.Command):
    """Student and chunks to the Hub."""

    name = "push"
    summary = "Publish a student on the Hub, or the chunks it learned from: private by default."
    output = "push.json"

    def reason_absent(self, recipe: Recipe) -> str | None:
        """A repository."""
        return "hub.repo_id" if recipe.hub.repo_id is None else None

    def lacks(self, recipe: Recipe) -> list[str]:
        """Nothing; names that no repository has, and a converter that is not installed, are errors."""
        for name in ("repo_id", "data_repo_id"):
            if (repo_id := getattr(recipe.hub, name)) is not None:
                check_repo_id(repo_id, where=f"hub.{name}")
        check_revision(recipe.hub.revision, where="hub.revision")
        if recipe.hub.ctranslate2:
            CTRANSLATE2_FORMAT.check_installed()
        return []

    def check(self, run: RunState) -> None:
        """Open the repositories with the token."""
        hub = run.recipe.hub
        for repo_id, kind in ((hub.repo_id, "model"), (hub.data_repo_id, "dataset")):
            if repo_id is not None:
                open_destination(repo_id, kind=kind, private=hub.private, revision=hub.revision)

    def depends(self, run: RunState) -> list[Any]:
        """Settings, and what is published."""
        return [deciding(run.recipe.hub), run.ran("validate", "distil", "card")]

    def run(self, run: RunState, job: Job) -> str:
        """Write what was pushed."""
        settings = run.recipe.validate
        by = f", {settings.auxiliaries_by} of {len(run.auxiliaries)} auxiliaries" if run.more_auxiliaries else ""
        facts = {
            "teacher": teacher_name(run.teacher, run.original),
            "auxiliary": ", ".join(map(public_name, run.auxiliaries)),
            "validation": describe_validation(vars(settings)) + by,
        }
        results = push(run.folder / "student", run.folder / "validated", run.recipe.hub, job, facts=facts)
        write_json(job.output, [asdict(result) for result in results])
        return "; ".join(map(str, results))

    def add_arguments(self, parser: CommandParser) -> None:
        """Student, data and where to."""
        student = "student, such as runs/mine/student, or a run"
        parser.add_argument("student", nargs="?", type=Path, metavar="PATH", help=student)
        repository = "repository, made where it is missing"
        parser.add_argument("--repo-id", required=True, metavar="USER/NAME", help=repository)
        seen = parser.add_mutually_exclusive_group()
        private = "visible to its owner alone (default)"
        seen.add_argument("--private", dest="private", action="store_true", default=True, help=private)
        seen.add_argument("--public", dest="private", action="store_false", help="visible to all the world")
        parser.add_argument("--revision", metavar="BRANCH", help="branch, made where it is missing (default: main)")
        data = "output of k2d validate, or a run, as a data set"
        parser.add_argument("--data", type=Path, metavar="CHUNKS", help=data)
        data = "repository of the data set (default: --repo-id)"
        parser.add_argument("--data-repo-id", metavar="USER/NAME", help=data)
        folder = "one more folder, the student for faster-whisper"
        parser.add_argument("--ctranslate2", action="store_true", help=folder)
        folder = "one more folder, the student for whisper.cpp"
        parser.add_argument("--ggml", action="store_true", help=folder)
        whole = "an adapter's folder as the whole model that it makes of its base"
        parser.add_argument("--merge", action="store_true", help=whole)
        parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
        parser.epilog = (
            "Uploads weights, settings, processor and card, nothing else of the folder; nothing that is there already. "
            "It takes a token that may write, from `hf auth login` or HF_TOKEN."
        )

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d push`."""
        if arguments.student is None and arguments.data is None:
            raise K2DError("push: nothing to push; give the folder of a student, or --data CHUNKS")
        for name in ("ctranslate2", "ggml", "merge"):
            if arguments.student is None and getattr(arguments, name):
                raise K2DError(f"push: --{name} goes with a student; give its folder, or leave the option out")
        if arguments.data is None and arguments.data_repo_id is not None:
            raise K2DError("push: --data-repo-id goes with --data CHUNKS; give them, or leave the option out")
        data_repo_id = arguments.data_repo_id or arguments.repo_id
        given = {field.name: getattr(arguments, field.name, field.default) for field in fields(HubSettings)}
        hub = HubSettings(**{**given, "data_repo_id": data_repo_id})
        folder = None if arguments.student is None else command.part_of_run(arguments.student, "student")
        chunks = None if arguments.data is None else command.part_of_run(arguments.data, "validated")
        check_revision(hub.revision)
        if chunks is not None:
            check_repo_id(data_repo_id)
            load_chunks(chunks)

        def work(job: Job) -> str:
            return "; ".join(map(str, push(folder, chunks, hub, job, message=arguments.message)))

        command.perform(arguments, work, lock=False)


def push(
    student: Path | None,
    chunks: Path | None,
    hub: HubSettings,
    job: Job,
    *,
    facts: Mapping[str, str] | None = None,
    message: str | None = None,
) -> list[PushResult]:
    """Publish the folder of a student, and validated chunks, where they are given and `hub` names a repository.

    The card of the data set has the `facts`, the commit the `message`.
    """
    where: dict[str, Any] = {"private": hub.private, "revision": hub.revision, "message": message}
    results = []
    if student is not None and hub.repo_id is not None:
        what = {name: getattr(hub, name) for name in ("ctranslate2", "ggml", "merge")}
        results.append(push_student(student, hub.repo_id, **what, **where))
    if chunks is not None and hub.data_repo_id is not None:
        where |= {"on_start": partial(job.progress.start, unit="chunks"), "on_progress": job.progress.advance}
        results.append(push_data(chunks, hub.data_repo_id, facts=facts, **where))
    return results
