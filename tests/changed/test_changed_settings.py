"""A finished run, a setting changed, and the same command again: what it leaves is what a fresh run leaves.

For every setting there is another value in `values.py`; a new one without it fails. `make test` runs one a stage and
those that were wrong once, `make test-changed` all of them; the keys of all are looked at in any case.
"""

import os
from dataclasses import replace

import pytest

from changed.results import differences, results_of
from changed.values import CHANGES, GPU, PROCESSES, REFUSED, TRAINING, fields_of_a_recipe
from k2d_hf.distillation.card_callback import arguments_for_card
from k2d_hf.distillation.rehearsal import on_any_machine
from k2d_hf.distillation.settings import TRAINER_WITHOUT_EFFECT, DistillationSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import hints_of, section_of
from k2d_hf.models import resolve_checkpoint
from k2d_hf.pipeline.prepare import find_data, original_of
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import RunState, shards_of_stage
from k2d_hf.pipeline.stages import planned_stages
from k2d_hf.pipeline.stages.card import gather_facts
from k2d_hf.pipeline.stages.student import init_sources
from k2d_hf.pipeline.training import training_arguments
from k2d_hf.publishing.card_facts import LOSS
from k2d_hf.publishing.card_rendering import render_card
from k2d_hf.terminal.console import Console
from k2d_hf.validation.judges import JUDGES

pytestmark = pytest.mark.slow

ALL = os.environ.get("K2D_CHANGED") == "all"
IN_SHORT = (
    *("validate.threshold", "targets.kind", "distil.full_windows"),
    "label.batch_size validate.shard_size distil.dataloader_num_workers",
)
LAST = ("evaluate", "evaluation", "name")  # what no stage before evaluation depends on


def test_every_setting_has_another_value():
    assert sorted(CHANGES) == sorted(fields_of_a_recipe())


def has_no_effect(name):
    """Whether a setting is declared not to change the result."""
    section, _, inner = name.partition(".")
    if section == "distil":
        ours = DistillationSettings.__dataclass_fields__.get(inner)
        return bool(ours.metadata.get("no_effect")) if ours else inner in TRAINER_WITHOUT_EFFECT
    outer = Recipe.__dataclass_fields__[section]
    if outer.metadata.get("no_effect") or not inner:
        return bool(outer.metadata.get("no_effect"))
    return bool(section_of(hints_of(Recipe)[section]).__dataclass_fields__[inner].metadata.get("no_effect"))


RUN = [name for name, change in CHANGES.items() if change.why_not is None] if ALL else IN_SHORT


@pytest.mark.parametrize("names", RUN)
def test_a_changed_setting_gives_what_a_fresh_run_gives(workplace, again, names):
    names = names.split()
    given, idle = [one for name in names for one in CHANGES[name].sets], all(map(has_no_effect, names))
    if not ALL and not idle and names[0].partition(".")[0] not in LAST:
        given.append("evaluation=null")
    before = results_of(again)
    ran = workplace.run(again, *given)
    assert bool(ran) != idle, ran
    after = results_of(again)
    assert not idle or differences(after, before) == []
    section = names[0].partition(".")[0]
    later = {"targets": "targets", "distil": "targets", "evaluate": "evaluate"}
    reused = {} if ALL or section not in later else {"after": again, "stage": later[section]}
    assert differences(after, workplace.fresh(*given, **reused)) == []


OTHERWISE = {  # how the card describes some settings, instead of by name
    "beam_size": "beam ", "metric": "full, ", "threshold": "threshold ",
    "decoder_layers": "decoder layers", "encoder_layers": "encoder layers", "init": "| begins with |",
    "encoder_neurons": "neurons of an encoder layer",
    "language_mix": "50% zh, 50% en", "enabled": "teacher's probabilities",
    "engine": "engine faster-whisper", "weights": "3 times distance / threshold",
    **{judge.setting: judge.name for judge in JUDGES},
}  # fmt: skip


def test_the_card_has_every_setting_of_the_method_that_is_not_the_papers(workplace, finished, tmp_path):
    """Whatever changes what a student learns from, or how: each is found in the card, with its value."""
    for name, change in CHANGES.items():
        section, _, inner = name.partition(".")
        ours = section != "distil" or inner in DistillationSettings.__dataclass_fields__
        refused = change.why_not == REFUSED
        known = section in ("label", "validate", "targets", "student", "distil") and ours
        if not known or refused or has_no_effect(name):
            continue
        recipe = workplace.recipe(finished, *change.sets, elsewhere=True)
        if section in ("label", "validate") and getattr(getattr(recipe, section), inner) == _field(name).default:
            continue
        assert OTHERWISE.get(inner, inner) in card_of(recipe, finished, tmp_path), name


def card_of(recipe, run, folder):
    """The text of the card of a run, had it been trained with a recipe."""
    models = {name: resolve_checkpoint(recipe.teacher) for name in ("teacher", "auxiliary")}
    arguments = training_arguments(on_any_machine(recipe.distil), folder, resume=folder, language=None)
    facts = gather_facts(run, recipe, **models)
    given = {**{name: getattr(arguments, name) for name in LOSS}, **arguments_for_card(arguments)}
    return str(render_card(replace(facts, training=replace(facts.training, arguments=given))))


def keys_of(workplace, run, *sets):
    """Keys of all stages of a run, as if each had been done; and the folders of finished shards of two of them."""
    recipe = workplace.recipe(run, *sets, elsewhere=True)
    planned = planned_stages(recipe)
    known = RunState(replace(recipe, output=str(run)), [stage.name for stage in planned], Console(silent=True))
    known.recipe = recipe
    known.teacher, known.auxiliary = (
        resolve_checkpoint(str(workplace.folder / "teacher")),
        resolve_checkpoint(str(workplace.folder / "auxiliary")),
    )
    sources = init_sources(recipe)
    known.original = original_of(recipe, known.teacher)
    known.origin = known.teacher if sources is None else resolve_checkpoint(sources)
    find_data(known)
    keys = {stage.name: stage.key(known) for stage in planned}
    shards = {
        name: shards_of_stage("", name, model, settings, recipe.language)
        for name, model, settings in (
            ("label", known.teacher, recipe.label),
            ("validate", known.auxiliary, recipe.validate),
        )
    }
    return keys, shards


FIRST = {
    "hub": "card",
    "hub.ctranslate2": "evaluate",
    "recordings": "label",
    "mix": "targets",
    "evaluation": "evaluate",
    "language": "label",
    "name": "card",
    "rounds": "card",
    "adapt": "card",
    **{f"validate.{judge.setting}": "label" for judge in JUDGES if judge.measure is None},  # with label.measures
}
WITH_OTHERS = {"distil.encoder_weight": "student"}  # which is changed with it


@pytest.mark.parametrize("section", sorted({name.partition(".")[0] for name in CHANGES}))
def test_a_key_changes_with_a_setting_unless_that_has_no_effect(workplace, finished, section):
    keys, shards = keys_of(workplace, finished)
    for name, change in CHANGES.items():
        if name.partition(".")[0] != section or not change.sets or change.why_not in (GPU, REFUSED, PROCESSES):
            continue
        given = [one.format(elsewhere="elsewhere", teacher="teacher") for one in change.sets]
        read = ("teacher", "auxiliary", "more_auxiliaries", "distil.deepspeed", "distil.parallelism_config")
        if section == "evaluation" or name in read:
            continue  # what is read decides, and not the setting
        others, other_shards = keys_of(workplace, finished, *given)
        changed = [stage for stage in keys if others.get(stage) != keys[stage]]
        if has_no_effect(name):
            assert (name, changed) == (name, [])
        elif section == "distil":
            assert "distil" in changed, name
        else:
            assert changed[:1] == [FIRST.get(name, FIRST.get(section, section))], name
        metadata = getattr(_field(name), "metadata", {})
        models_again = section in ("label", "validate") and not has_no_effect(name) and not metadata.get("after_model")
        if section in ("label", "validate"):
            assert (other_shards[section] != shards[section]) is models_again, name


def _field(name):
    section, _, inner = name.partition(".")
    cls = section_of(hints_of(Recipe)[section]) if inner and section != "distil" else None
    return cls.__dataclass_fields__[inner] if cls else None


def test_every_setting_without_effect_says_why():
    assert set(TRAINER_WITHOUT_EFFECT) <= set(TRAINING)
    assert all(TRAINER_WITHOUT_EFFECT.values())


def test_what_the_free_disk_holds_decides_time_alone(workplace, again, monkeypatch):
    """With other settings, and room for the encoder's states, a run gives what it gives where there never was any."""
    names = ("timestamp_probability", "previous_text_probability", "temperature", "task")
    changed = [*(one for name in names for one in TRAINING[name].sets), "evaluation=null"]
    assert workplace.run(again, *changed) == ["targets", "distil", "card"]
    monkeypatch.setattr("k2d_hf.distillation.targets.encoder_states.SHARE_OF_DISK", 0.0)
    assert differences(results_of(again), workplace.fresh(*changed, after=again)) == []


def stop(*_):
    raise K2DError("stopped here")


@pytest.mark.parametrize("shares", [(0.5, 0.0), *([(0.0, 0.5)] if ALL else [])], ids=["less", "more"][: 1 + ALL])
def test_targets_that_were_interrupted_go_on_whatever_room_there_is(workplace, again, monkeypatch, shares):
    changed = ("targets.shard_size=1", "distil.task=translate", "evaluation=null")
    monkeypatch.setattr("k2d_hf.distillation.targets.encoder_states.SHARE_OF_DISK", shares[0])
    with monkeypatch.context() as interrupted:
        interrupted.setattr("k2d_hf.files.arrow.join_files", stop)
        with pytest.raises(K2DError, match="stopped here"):
            workplace.run(again, *changed)
    monkeypatch.setattr("k2d_hf.distillation.targets.encoder_states.SHARE_OF_DISK", shares[1])
    assert workplace.run(again, *changed) == ["targets", "distil", "card"]
