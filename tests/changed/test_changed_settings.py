"""A finished run, a setting changed, and the same command again: what it leaves is what a fresh run leaves.

For every setting there is another value in `values.py`; a new one without it fails. `make test` runs one a stage and
those that were wrong once, `make test-changed` all of them; the keys of all are looked at in any case.
"""

import os

import pytest

from changed.results import differences, results_of
from changed.values import CHANGES, GPU, TRAINING, fields_of_a_recipe
from k2d_hf.checkpoints import resolve_checkpoint
from k2d_hf.distillation.settings import TRAINER_WITHOUT_EFFECT, DistillationSettings
from k2d_hf.preflight import measured_recordings, recordings_of
from k2d_hf.recipe import Recipe
from k2d_hf.runner import planned_stages
from k2d_hf.settings import hints_of, section_of
from k2d_hf.stage_keys import KnownRun
from k2d_hf.stages.files import shards_of_stage

ALL = os.environ.get("K2D_CHANGED") == "all"
IN_SHORT = (
    *("label.max_duration", "label.batch_size", "validate.threshold", "student.encoder_layers", "targets.kind"),
    *("distil.timestamp_probability", "distil.full_windows", "distil.task", "distil.keep_encoder_states"),
    *("distil.dataloader_num_workers", "evaluate.speed_recordings"),
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


RUN = [name for name, change in CHANGES.items() if change.why_not is None and (ALL or name in IN_SHORT)]


@pytest.mark.parametrize("name", RUN)
def test_a_changed_setting_gives_what_a_fresh_run_gives(workplace, again, name):
    given = list(CHANGES[name].sets)
    if not ALL and name.partition(".")[0] not in LAST:
        given.append("evaluation=null")
        workplace.run(again, "evaluation=null")
    before = results_of(again)
    ran = workplace.run(again, *given)
    assert bool(ran) != has_no_effect(name), ran
    after = results_of(again)
    assert differences(after, workplace.fresh(*given)) == []
    assert not has_no_effect(name) or differences(after, before) == []


def keys_of(workplace, run, *sets):
    """Keys of all stages of a run, as if each had been done; and the folders of finished shards of two of them."""
    recipe = workplace.recipe(run, *sets, elsewhere=True)
    known = KnownRun(recipe, run, planned_stages(recipe))
    known.teacher, known.auxiliary = (
        resolve_checkpoint(str(workplace.folder / "teacher")),
        resolve_checkpoint(str(workplace.folder / "auxiliary")),
    )
    known.recordings = recordings_of(recipe.recordings)
    known.evaluation = None if recipe.evaluation is None else measured_recordings(recipe.evaluation)
    keys = {name: known.key(name) for name in known.planned}
    shards = {
        name: shards_of_stage("", name, model, settings, recipe.language)
        for name, model, settings in (
            ("label", known.teacher, recipe.label),
            ("validate", known.auxiliary, recipe.validate),
        )
    }
    return keys, shards


FIRST = {"hub": "card", "recordings": "label", "evaluation": "evaluate", "language": "label", "name": "card"}
WITH_OTHERS = {"distil.encoder_weight": "student"}  # which is changed with it


@pytest.mark.parametrize("section", sorted({name.partition(".")[0] for name in CHANGES}))
def test_a_key_changes_with_a_setting_unless_that_has_no_effect(workplace, finished, section):
    keys, shards = keys_of(workplace, finished)
    for name, change in CHANGES.items():
        if name.partition(".")[0] != section or not change.sets or change.why_not in (GPU, "refused"):
            continue
        given = [one.format(elsewhere="elsewhere", teacher="teacher") for one in change.sets]
        if name.endswith((".address", ".workers", ".worker_cpus", ".worker_gpus")):
            pass
        if section == "evaluation" or name in ("teacher", "auxiliary", "distil.deepspeed", "distil.parallelism_config"):
            continue  # what is read decides, and not the setting
        others, other_shards = keys_of(workplace, finished, *given)
        changed = [stage for stage in keys if others.get(stage) != keys[stage]]
        if has_no_effect(name):
            assert (name, changed) == (name, [])
        elif section == "distil":
            assert "distil" in changed, name
        else:
            assert changed[:1] == [FIRST.get(section, section)], name
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
