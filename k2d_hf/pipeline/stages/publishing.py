"""The last stage: what the section `hub` of a recipe names goes to the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.files.json_files import write_json
from k2d_hf.terminal.console import Stage

if TYPE_CHECKING:
    from k2d_hf.pipeline.recipe import HubSettings


def check_push(settings: HubSettings) -> None:
    """Raise K2DError, before the first stage of a run, for what would stop its push at the end."""
    from k2d_hf.publishing.hub import check_ctranslate2, open_destination

    if settings.ctranslate2:
        check_ctranslate2()
    for repo_id, kind in ((settings.repo_id, "model"), (settings.data_repo_id, "dataset")):
        if repo_id is not None:
            open_destination(repo_id, kind=kind, private=settings.private, revision=settings.revision)


def push(
    student: Path, validated: Path, settings: HubSettings, facts: Mapping[str, str], stage: Stage, *, output: Path
) -> str:
    """Publish the student, and where a repository for them is named the chunks; `output` says what was done.

    Args:
        student: its folder.
        validated: the chunks that it learned from, and those that were dropped.
        settings: where to.
        facts: lines for the card of the data set.
        stage: shows the progress.
        output: the JSON file with what was pushed.
    """
    from k2d_hf.publishing.hub import push_data, push_student

    where: dict[str, Any] = {"private": settings.private, "revision": settings.revision}
    results = []
    if settings.repo_id is not None:
        results.append(push_student(student, settings.repo_id, ctranslate2=settings.ctranslate2, **where))
    if settings.data_repo_id is not None:
        where |= {"on_start": partial(stage.start, unit="chunks"), "on_progress": stage.advance}
        results.append(push_data(validated, settings.data_repo_id, facts=facts, **where))
    write_json(output, [asdict(result) for result in results])
    return "; ".join(map(str, results))
