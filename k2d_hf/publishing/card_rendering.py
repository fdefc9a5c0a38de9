"""From facts to the text of a card: the only place where a student's card is written.

All values of the template are escaped, but for `Markdown` made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard

from k2d_hf.evaluation.sets import macro_averages
from k2d_hf.evaluation.switching import EXPLAINED
from k2d_hf.evaluation.table import (
    average_rows,
    average_title,
    inserted_rows,
    main_rate,
    millions,
    render_bars,
    switching_rows,
    switching_title,
    table_columns,
    table_rows,
)
from k2d_hf.evaluation.timing import speed_up
from k2d_hf.evaluation.ways import FASTER_WHISPER, PIPELINE
from k2d_hf.formatting import counted
from k2d_hf.models.language_mix import described
from k2d_hf.publishing.card_names import escaped, hub_id, one_line
from k2d_hf.publishing.card_use import (
    AS_EVALUATED,
    OF_WHISPER,
    Place,
    decoded,
    faster_whisper_section,
    measured_line,
    opened_with,
    pipeline_arguments,
    ways_of,
    whisper_cpp_section,
)
from k2d_hf.publishing.model_card_data import EvaluatedSet, K2DModelCardData, TrainingFacts
from k2d_hf.terminal.console import minutes

SHOWN_LOGS = 8
SHOWN_CHARACTERS = 300  # of a sample of output
MEASURES = {
    "loss": "loss",
    "ce": "cross-entropy",
    "kl": "KL",
    "auxiliary_kl": "auxiliary's KL",
    "agreement": "agreement with teacher",
    "encoder_mse": "encoder distance",
    "mer": "MER",
}


class Markdown(str):
    """Text that is Markdown already, and not escaped."""


def render_card(data: K2DModelCardData) -> ModelCard:
    """The card as huggingface_hub knows it: metadata in front, then the template filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("k2d_hf.publishing", ""),
        finalize=lambda value: value if isinstance(value, Markdown) else escaped(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    facts = data.data
    checked = "a second decoding" if data.auxiliary_is_teacher else "a second model"
    evaluated = data.training.evaluated.items() if data.training else ()
    measured = [(name or "evaluation chunks", figures) for name, figures in evaluated]
    learned_from = None
    if facts is not None:
        own = facts.seconds if facts.kept_seconds is None else facts.kept_seconds
        learned_from = minutes(own + math.fsum(facts.given.values()))
    text = environment.get_template("model_card_template.md").render(
        metadata=Markdown(data.to_yaml()),
        title=one_line(data.model_name),
        languages=", ".join(data.languages),
        teacher=data.teacher,
        **_use(data),
        machine=data.machine,
        evaluations=[_evaluation(measured) for measured in data.evaluations],
        averages=_averages(data.evaluations),
        facts=_facts(data),
        training_log=_log_table(data.training_log),
        validation_log=_measures_table("set", measured) if measured else None,
        checked=checked if facts and facts.kept is not None else None,
        learned_from=learned_from,
        given=", ".join(facts.given) if facts else "",
        samples=[(one_line(one.name), _beginning(one.reference), _beginning(one.text)) for one in data.samples],
    )
    return ModelCard(text)


def _use(data: K2DModelCardData) -> dict[str, Any]:
    """The values of the section `Use`."""
    base_model, ways, evaluated = hub_id(data.base_model), ways_of(data.evaluations), bool(data.evaluations)
    place = Place(hub_id(data.model_id), data.revision, data.ctranslate2, data.ggml)
    language = data.given_language
    faster_whisper = None
    if (data.ctranslate2 or FASTER_WHISPER in ways) and not data.adapters_alone:
        measured = ways.get(FASTER_WHISPER)
        faster_whisper = faster_whisper_section(place, data.decoding, language, measured, evaluated=evaluated)
    whisper_cpp = None
    if data.ggml and not data.adapters_alone:
        whisper_cpp = whisper_cpp_section(place, data.decoding, language, evaluated=evaluated)
    return {
        "adapters_alone": data.adapters_alone,
        "assists": base_model and data.training and data.training.shares_encoder and not data.adapters_alone,
        "base_model": Markdown(base_model) if base_model else None,
        "faster_whisper": faster_whisper and Markdown(faster_whisper),
        "whisper_cpp": whisper_cpp and Markdown(whisper_cpp),
        "language": language,
        "model_id": place.repo_id,
        "opened_with": Markdown(opened_with()),
        "pipeline_arguments": [(Markdown(name), Markdown(value)) for name, value in pipeline_arguments(data.decoding)],
        "pipeline_measured": Markdown(measured_line(ways.get(PIPELINE))) if evaluated else None,
        "settings": AS_EVALUATED if evaluated else OF_WHISPER,
        "source": Markdown(place.source),
    }


def _facts(data: K2DModelCardData) -> list[tuple[str, str]]:
    """Names and values of the table, those that are known."""
    teacher = data.teacher and data.teacher + (f", beam {data.beam_size}" if data.beam_size else "")
    same = "the teacher's checkpoint, decoding each chunk from scratch"
    more = ", ".join(data.more_auxiliaries)
    parameters = millions(data.parameters) if data.parameters else None
    if parameters and data.teacher_parameters:
        parameters += f"; teacher {millions(data.teacher_parameters)}"
    table = {
        "teacher": teacher,
        "recordings": data.recordings,
        "auxiliary": same if data.auxiliary_is_teacher else data.auxiliary,
        "more auxiliaries": f"{more}; distance by {data.auxiliaries_by} of all" if more else None,
        **_data_facts(data),
        **{f"settings of {stage}": _named(values) for stage, values in data.settings.items()},
        "begins with": data.begins_with,
        "language token begins as": described(data.language_mix) if data.language_mix else None,
        "encoder layers": data.encoder_layers,
        "neurons of an encoder layer": data.encoder_neurons,
        "decoder layers": data.decoder_layers,
        "parameters": parameters,
        **(_training_facts(data.training) if data.training else {}),
    }
    return [(name, value) for name, value in table.items() if value]


def _data_facts(data: K2DModelCardData) -> dict[str, str | None]:
    facts = data.data
    if facts is None:
        return {}
    validation, kept, means = data.metric, None, facts.means
    if validation and data.threshold is not None:
        validation = ", ".join([validation, f"threshold {data.threshold:g}", *data.demands])
    if facts.kept is not None and facts.kept_seconds is not None:
        share = f" ({100 * facts.kept_seconds / facts.seconds:.0f}%)" if facts.seconds else ""
        kept = f"{minutes(facts.kept_seconds)}{share}, {counted(facts.kept, 'chunk')}"
    shown = [f"{name.upper()} {means[name]:.1%}" for name in ("mer", "per") if name in means]
    shown += [f"distance {means['distance']:.2f}"] if "distance" in means else []
    read = f" of {minutes(facts.read_seconds)} of recordings" if facts.read_seconds else ""
    used = _pseudo_labelled(data.training) if data.training else None
    too_long = (facts.chunks if facts.kept is None else facts.kept) - used if used is not None else 0
    dropped = {**facts.dropped, **({"label too long for the decoder": too_long} if too_long > 0 else {})}
    return {
        "speech labelled": f"{minutes(facts.seconds)}{read}, {counted(facts.chunks, 'chunk')}",
        "validation": validation,
        "speech kept": kept,
        "dropped": ", ".join(f"{count} {reason}" for reason, count in dropped.items()),
        "teacher and auxiliary apart, on what was kept": f"mean {', '.join(shown)}" if shown else None,
        "text that was given": "; ".join(_given(name, seconds, data.training) for name, seconds in facts.given.items()),
    }


def _pseudo_labelled(training: TrainingFacts) -> int | None:
    """The chunks with pseudo-labels that were trained on."""
    if not training.sources:
        return training.chunks
    return sum(source["chunks"] for source in training.sources if source["name"] is None)


def _given(name: str, seconds: float, training: TrainingFacts | None) -> str:
    """A source whose text was given: its length, its chunks, and its weight in training."""
    source = next((one for one in (training.sources if training else ()) if one["name"] == name), None)
    parts = [minutes(seconds)] if seconds else []
    if source is not None:
        parts.append(counted(source["chunks"], "chunk"))
        parts += [f"{source['share']:.0%} of each epoch"] if source["share"] is not None else []
    return f"{name} ({', '.join(parts)})" if parts else name


def _training_facts(training: TrainingFacts) -> dict[str, str | None]:
    probabilities = {True: "soft targets on disk", False: "in memory while training", None: None}
    encoders = {True: "the teacher's, frozen", False: "its own", None: None}
    done = counted(training.steps, "step") if training.steps else None
    if done and training.epochs:
        done += f", {counted(round(training.epochs, 2), 'epoch')}"
    if done and training.seconds:
        done += f", {minutes(training.seconds)}"
    on = training.device + (f", {training.processes} processes" if training.processes > 1 else "")
    return {
        "encoder": encoders[training.shares_encoder],
        "teacher's probabilities": probabilities[training.soft_targets],
        "loss": _named(training.loss),
        "adapters": training.adapters,
        "training arguments": _named(training.arguments) or "defaults",
        "chunks in a step": str(training.batch_size),
        "training": f"{done} on {on}" if done else None,
        "versions": _named(training.versions),
    }


def _beginning(text: str) -> str:
    """The first characters of a transcript, with dots where more follows."""
    line = one_line(text, most=SHOWN_CHARACTERS + 1)
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS].rstrip()} …"


def _evaluation(measured: EvaluatedSet) -> dict[str, Any]:
    """How a set was measured, its table, and how much faster the student is, if both were timed together."""
    figures = dict(measured.figures)
    student = figures.get("student") or next(iter(figures.values()))
    name = escaped(measured.title)
    language = f", given language {escaped(student['language'])}" if measured.name and student.get("language") else ""
    part = ", ".join(escaped(value) for value in (measured.config, measured.split) if value)
    how = (
        f"{name}{f' ({part})' if part else ''}: {counted(student['recordings'], 'recording')}, "
        f"{minutes(student['audio_seconds'])}, long-form by {escaped(student['engine'])}, "
        f"{escaped(decoded(student))}{language}."
    )
    ratio = speed_up(figures["teacher"], figures["student"]) if {"teacher", "student"} <= figures.keys() else None
    return {
        "heading": one_line(measured.name),
        "how": Markdown(how),
        "table": _table(["model", *table_columns(figures)], table_rows(figures)),
        "words": main_rate(figures)[1] == "wer",
        "chart": Markdown(render_bars(figures)) if measured.name else None,
        "inserted": "; ".join(f"{title}: {text}" for title, text in inserted_rows(figures)),
        "switching": _switching(figures),
        "speed": None if ratio is None else f"The student is {ratio:.1f} times as fast as its teacher.",
    }


def _switching(figures: Mapping[str, Mapping[str, Any]]) -> tuple[str, Markdown, str] | None:
    """Title, table and explanation of the errors where the language changes; None where no reference does so."""
    if not (rows := switching_rows(figures)):
        return None
    title = switching_title(figures)
    return f"{title[0].upper()}{title[1:]}", _table(["model", *map(escaped, rows[0][1:])], rows[1:]), EXPLAINED


def _averages(evaluations: Sequence[EvaluatedSet]) -> list[tuple[str, Markdown]]:
    """Title and table of each average over sets that are alike."""
    shown = []
    for average in macro_averages({measured.name: measured.figures for measured in evaluations}):
        title, (head, *cells) = average_title(average), average_rows(average)
        shown.append((title[0].upper() + title[1:], _table(["model", *head[1:]], cells)))
    return shown


def _log_table(log: Sequence[Mapping[str, Any]]) -> Markdown | None:
    """At most a few rows of the trainer's log, evenly spaced, the last among them."""
    rows = [(str(row.get("step", "-")), row) for row in log if _is_number(row.get("loss"))]
    return _measures_table("step", rows[len(rows) - 1 :: -len(rows) // SHOWN_LOGS][::-1]) if rows else None


def _measures_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Markdown:
    names = [name for name in MEASURES if any(name in figures for _, figures in rows)]
    return _table([title, *(MEASURES[name] for name in names)], [[name, *_figures(row, names)] for name, row in rows])


def _figures(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    forms = {"agreement": "{:.1%}", "mer": "{:.1%}"}
    return [forms.get(name, "{:.3f}").format(row[name]) if _is_number(row.get(name)) else "-" for name in names]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    lines = [titles, ["---"] * len(titles), *([escaped(cell) for cell in row] for row in rows)]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _named(values: Mapping[str, Any]) -> str:
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
