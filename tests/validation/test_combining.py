"""The distance and the judges together: by any, all, or a weighted mean."""

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.validation.combining import checked_weights, demands, describe_validation, is_combined, reason_to_drop
from k2d_hf.validation.distance import LabelComparison
from k2d_hf.validation.settings import ValidateSettings

LIMITS = {"max_uncertainty": 0.5, "max_speaking_rate": 10.0}


def reason(distance, uncertainty, rate, *, loops=False, **settings):
    given = vars(ValidateSettings(**{**LIMITS, **settings}))
    comparison = LabelComparison(loops, False, distance, distance, 1.0 if loops else distance)
    return reason_to_drop(comparison, {"uncertainty": uncertainty, "speaking_rate": rate}, given)


@pytest.mark.parametrize(
    ("combine", "measured", "expected"),
    [
        ("any", (0.4, 0.5, 10), None),
        ("any", (0.5, 0.5, 10), "distance > 0.40"),
        ("any", (0.5, 0.6, 10), "uncertainty > 0.5"),
        ("all", (0.5, 0.6, 10), None),
        ("all", (0.4, 0.6, 11), None),
        ("all", (0.5, 0.6, 11), "distance > 0.40 and speaking rate > 10 and uncertainty > 0.5"),
        ("all", (0.5, None, 11), "distance > 0.40 and speaking rate > 10"),
        ("sum", (0.4, 0.5, 10), None),
        ("sum", (0.5, 0.5, 10), "weighted mean > 1"),
        ("sum", (0.5, 0.1, 10), None),
        ("sum", (0.5, None, 10), "weighted mean > 1"),
    ],
)
def test_three_ways(combine, measured, expected):
    assert reason(*measured, combine=combine) == expected
    assert expected is None or is_combined(expected)


def test_weights_count():
    given = {"combine": "sum", "weights": {"distance": 0, "uncertainty": 2}}
    assert reason(9.0, 0.5, 10, **given) is None
    assert reason(0.0, 0.6, 9, **given) == "weighted mean > 1"  # (2 * 1.2 + 0.9) / 3
    assert reason(0.0, 0.6, 5, **given) is None


@pytest.mark.parametrize("combine", ["any", "all", "sum"])
def test_a_looping_teacher_is_dropped_by_each(combine):
    assert reason(0.0, 0.1, 1, loops=True, combine=combine) == "teacher loops"


@pytest.mark.parametrize("metric", ["full", "trivial"])
def test_a_metric_without_distance_leaves_it_to_the_judges(metric):
    assert reason(0.0, 0.6, 11, metric=metric, combine="all") == "speaking rate > 10 and uncertainty > 0.5"
    assert reason(0.0, 0.6, 11, metric=metric, combine="sum") == "weighted mean > 1"
    nothing = {"max_uncertainty": None, "max_speaking_rate": None}
    assert [reason(0.0, 9, 99, metric=metric, combine=way, **nothing) for way in ("any", "all", "sum")] == [None] * 3


def test_a_threshold_of_zero():
    assert reason(0.1, 0.0, 0, threshold=0.0, combine="sum") == "weighted mean > 1"
    assert reason(0.0, 0.1, 1, threshold=0.0, combine="sum") is None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"combine": "sum", "weights": [1, 2]}, "is no mapping; give numbers by column"),
        ({"weights": {"distance": 1}}, "they are of combine sum, which is any"),
        ({"combine": "sum", "weights": {"uncertainy": 1}}, "'uncertainy' is none of .*; did you mean uncertainty"),
        (
            {"combine": "sum", "weights": {"compression_ratio": 1}},
            "no limit to be divided by; set max_compression_ratio",
        ),
        ({"combine": "sum", "weights": {"distance": -1}}, "give a number from 0 on"),
        ({"combine": "sum", "weights": {"distance": True}}, "give a number from 0 on"),
    ],
)
def test_wrong_weights_are_one_line(settings, line):
    with pytest.raises(K2DError, match=f"^weights: .*{line}"):
        ValidateSettings(**LIMITS, **settings)


def test_an_unknown_way_names_the_known():
    with pytest.raises(K2DError, match="combine 'al' is unknown: choose one of any, all, sum; did you mean"):
        ValidateSettings(combine="al")


def test_cards_describe_each_way():
    def described(**settings):
        return describe_validation(vars(ValidateSettings(max_uncertainty=0.5, **settings)))

    assert described() == "composite, threshold 0.4, uncertainty of at most 0.5 nats"
    assert "unless the distance is within the threshold" in described(combine="all")
    assert described(combine="sum").endswith("weighted mean of at most 1, of distance / threshold, uncertainty / 0.5")
    assert described(combine="sum", weights={"distance": 3}).endswith(
        "of 3 times distance / threshold, uncertainty / 0.5"
    )
    assert demands({"max_uncertainty": 0.5}) == ["uncertainty of at most 0.5 nats"]  # a recipe from before
    checked_weights(vars(ValidateSettings(combine="sum", weights={"distance": 2})))
    assert not is_combined("distance > 0.40 and /home/me")
