"""The plan of a run as text: what a terminal shows for `k2d run --dry-run`."""

from __future__ import annotations

from k2d_hf.evaluation.table import millions
from k2d_hf.models.inspect import ModelInfo
from k2d_hf.models.parts import layer_indices
from k2d_hf.pipeline.planning.data_facts import DataFacts
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import CAVEAT
from k2d_hf.terminal.console import minutes
from k2d_hf.terminal.screen import ENDLESS, Screen, aligned, listed
from k2d_hf.validation.distance import PAPER_KEPT

_NOT_EVALUATED = [("evaluation", "none")]


def render_plan(plan: Plan, screen: Screen = ENDLESS) -> str:
    """The plan, ready to be printed."""
    facts = [
        ("recordings", _data(plan.recordings)),
        *([(f"evaluation {name}".rstrip(), _data(data)) for name, data in plan.evaluation.items()] or _NOT_EVALUATED),
        ("teacher", _model(plan.teacher)),
        *(
            ("auxiliary", "the teacher itself" if model is plan.teacher else _model(model))
            for model in (plan.auxiliary, *plan.more_auxiliaries)
        ),
        ("student", _student(plan)),
        ("chunks", _chunks(plan)),
        *([("texts", _texts(plan))] if plan.recipe.sources else []),
        ("training", _training(plan)),
        ("disk", _disk(plan)),
    ]
    head = f"Plan of {plan.recipe.name}, results in {plan.recipe.directory}; nothing is run, nothing is written"
    notes = [f"- takes no time to speak of, or cannot be told from here. Estimates: {CAVEAT}."]
    notes += [f"Not on this machine: {lack}" for lack in plan.lacks]
    notes += [f"Warning: {warning}" for warning in plan.warnings]
    return "\n".join([head, "", listed(facts, screen), "", aligned(_stages(plan), screen), "", *notes])


def _data(data: DataFacts) -> str:
    if data.recordings is None or data.seconds is None:
        return f"{data.source} ({data.note})"
    count = f"{data.recordings:,} recording{'s' if data.recordings != 1 else ''}"
    return f"{count}, {duration(data.seconds)}{f' ({data.note})' if data.note else ''}"


def _model(model: ModelInfo) -> str:
    size = "size not known" if model.shape is None else f"{millions(model.shape.parameters)} parameters"
    return f"{model.name}, {size} ({model.where})"


def _student(plan: Plan) -> str:
    if plan.student is None or plan.origin.shape is None:
        return "not known without the config of the model that it is made of"
    of = plan.origin.shape
    kept = layer_indices(plan.recipe.student.decoder_layers, of.decoder_layers)
    trained = "adapters" if plan.trained is None else millions(plan.trained)
    layers = f"encoder layers {plan.student.encoder_layers} of {of.encoder_layers}"
    if plan.student.encoder_neurons < of.encoder_neurons:
        layers += f" with {plan.student.encoder_neurons} neurons of {of.encoder_neurons}"
    layers += f", decoder layers {','.join(map(str, kept))} of {of.decoder_layers}"
    return f"{millions(plan.student.parameters)} parameters, {trained} of them trained ({layers})"


def _chunks(plan: Plan) -> str:
    if plan.chunks is None or plan.kept is None:
        return "not known without the recordings: some 135 an hour of speech"
    if plan.counted:
        covered = "" if plan.covered is None else " that cover {} of {}".format(*map(minutes, plan.covered))
        return f"{plan.chunks:,}{covered}, of which {plan.kept:,} are kept"
    metric = plan.recipe.validate.metric
    share = f"{100 * PAPER_KEPT[metric]:.0f}%, the paper's with {metric}"
    return f"some {plan.chunks:,}, of which {plan.kept:,} kept if it is {share}"


def _texts(plan: Plan) -> str:
    parts = []
    for name, data in plan.recipe.sources.items():
        chunks = f"{plan.given[name]:,} chunks of {name}" if name in plan.given else f"{name} ({data.source}, not here)"
        parts.append(chunks + (f", {data.share:.0%} of an epoch" if data.share else ""))
    return "; ".join(parts)


def _training(plan: Plan) -> str:
    steps = "steps not known" if plan.steps is None else f"{plan.steps:,} steps"
    epochs = "" if plan.epochs is None else f", {plan.epochs:.3g} epoch{'s' if plan.epochs != 1 else ''}"
    return f"{steps} of {plan.batch} chunks{epochs}"


def _disk(plan: Plan) -> str:
    needed = sum(plan.disk.values())
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in plan.disk.items())
    text = f"{gigabytes(needed)}{f' ({parts})' if parts else ''}; {gigabytes(plan.free)} free"
    return text + (": not enough" if needed > plan.free else "")


def _stages(plan: Plan) -> list[list[str]]:
    rows = [["", "", *(machine.name for machine in plan.machines)]]
    for position, stage in enumerate(plan.stages, start=1):
        title = f"[{position}/{len(plan.stages)}] {stage.name}"
        times = ["-" for _ in plan.machines]
        if stage.finished is None and stage.seconds is not None:
            times = [duration(seconds) + (" for 1,000 h" if stage.supposed else "") for seconds in stage.seconds]
        rows.append([title, "to run" if stage.finished is None else "up to date", *times])
    todo = [stage for stage in plan.stages if stage.finished is None and stage.seconds and not stage.supposed]
    totals = [sum(stage.seconds[index] for stage in todo if stage.seconds) for index in range(len(plan.machines))]
    label = "without these" if any(stage.supposed for stage in plan.stages) else ""
    return [*rows, ["total", label, *map(duration, totals)]]


def gigabytes(size: float) -> str:
    """`12 MB`, `3.4 GB` or `44 GB`."""
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h` or `1,250 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"
