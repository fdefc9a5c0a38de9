"""Settings as keywords: each public function has those of its stage, and no other list of them than the dataclass."""

import inspect
from dataclasses import MISSING, dataclass, fields, replace

import pytest

from k2d_hf import (
    AuxiliaryHypotheses,
    SoftTargets,
    TeacherHypotheses,
    create_student,
    evaluate_model,
    evaluate_sets,
    label_recordings,
    load_recordings,
    validate_labels,
)
from k2d_hf.data.settings import DataSettings
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.files.keywords import takes
from k2d_hf.files.settings import setting
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.settings import StudentSettings
from k2d_hf.transcription.settings import SHARD_BY_SHARD
from k2d_hf.validation.settings import ValidateSettings

RUN = {"shards_dir", "report", "on_progress"}  # of one call, not of a stage
LABELS = {"language", "task", "timestamp_probability", "previous_text_probability", "full_windows", "temperature"}


@pytest.mark.parametrize(
    ("function", "settings", "others", "without"),
    [
        (load_recordings, DataSettings, {"group_by"}, ()),
        (label_recordings, LabelSettings, {"language", *RUN}, ()),
        (TeacherHypotheses, LabelSettings, {"language"}, SHARD_BY_SHARD),
        (validate_labels, ValidateSettings, {"language", "more_auxiliaries", *RUN}, ()),
        (AuxiliaryHypotheses, ValidateSettings, {"language", "more_auxiliaries"}, SHARD_BY_SHARD),
        (create_student, StudentSettings, {"language", "task", "tokenizer"}, ("init",)),
        (add_soft_targets, TargetsSettings, {"auxiliary", "temperature", "encoder_states_dir", "shards_dir", "on_progress"}, ()),
        (SoftTargets, TargetsSettings, {"auxiliary", *LABELS}, SHARD_BY_SHARD),
        (evaluate_model, EvaluateSettings, {"processor", "name", "language", "normaliser", "on_progress"}, ()),
        (evaluate_sets, EvaluateSettings, {"processor", "name", "language", "on_progress"}, ()),
    ],
)  # fmt: skip
def test_the_keywords_of_a_function_are_the_settings_of_its_stage(function, settings, others, without):
    parameters = inspect.signature(function).parameters.values()
    keywords = {one.name: one.default for one in parameters if one.default is not one.empty}
    declared = {one.name: one.default for one in fields(settings) if one.default is not MISSING}
    assert {name: keywords[name] for name in keywords.keys() - others} == {
        name: default for name, default in declared.items() if name not in without
    }
    assert others <= keywords.keys()
    for name in declared.keys() - set(without):
        assert f"    {name}: " in inspect.getdoc(function)
    of_the_loss = {one.name: one.default for one in fields(DistillationSettings)}
    for name in (LABELS & others) - {"language"} if settings is TargetsSettings else ():
        assert keywords[name] == of_the_loss[name]


@dataclass(frozen=True)
class Knobs:
    size: int = setting(3, "Size; null is any.", least=1)
    share: float = setting(0.5, "A share.", least=0, most=1)
    kind: str = setting("one", "A kind.", choices=("one", "two"))
    far: str | None = setting(None, "Where.")


@takes(Knobs, without=("far",))
def work(thing, again=1, *, note=None, settings):
    """Work on a thing.

    Args:
        thing: what is worked on.
        again: how often.
        note: of the caller.

    Returns:
        All of it.
    """
    return thing, again, note, settings


def test_settings_are_given_by_name_or_whole_or_both():
    assert work("a") == ("a", 1, None, Knobs())
    assert work("a", 2, note="n", size=4) == ("a", 2, "n", Knobs(size=4))
    whole = Knobs(share=0.25, far="away")
    assert work("a", settings=whole) == ("a", 1, None, whole)
    assert work("a", settings=whole, kind="two")[-1] == replace(whole, kind="two")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"size": 0}, K2DError, "size 0: at least 1"),
        ({"share": 1.5}, K2DError, "share 1.5: at most 1"),
        ({"share": float("nan")}, K2DError, "share nan: at least 0"),
        ({"kind": "twoo"}, K2DError, "kind 'twoo': choose one of one, two; did you mean two?"),
        ({"settings": Knobs(size=-1)}, K2DError, "size -1: at least 1"),
        ({"sise": 1}, TypeError, "work() got an unexpected keyword argument 'sise'; did you mean size?"),
        ({"far": "away"}, TypeError, "work() got an unexpected keyword argument 'far'"),
    ],
)
def test_what_is_no_setting_or_no_value_of_one_is_named(given, error, message):
    with pytest.raises(error) as caught:
        work("a", **given)
    assert str(caught.value) == message


def test_help_shows_every_setting():
    assert (
        str(inspect.signature(work))
        == "(thing, again=1, *, note=None, size: int = 3, share: float = 0.5, kind: str = 'one')"
    )
    assert inspect.getdoc(work).splitlines()[5:11] == [
        "    note: of the caller.",
        "    size: Size; None is any.",
        "    share: A share.",
        "    kind: A kind (one, two).",
        "",
        "Returns:",
    ]
