"""Judges are compared at one share of kept labels, with and without references."""

from dataclasses import replace

import numpy as np
import pytest

from k2d_hf.validation.calibration import ValidatedLabels
from k2d_hf.validation.calibration_report import calibrate, render_calibration
from k2d_hf.validation.combining import reason_to_drop
from k2d_hf.validation.distance import LabelComparison
from k2d_hf.validation.judge_comparison import compare_judges, limit_that_drops

NO = np.zeros(8, dtype=bool)
# Two labels are bad; the distance finds one of them, and the teacher's uncertainty both.
LABELS = ValidatedLabels(
    seconds=np.full(8, 30.0),
    mer=np.array([0.9, 0.8, 0.3, 0.2, 0.1, 0.1, 0.0, 0.0]),
    per=np.array([0.9, 0.8, 0.3, 0.2, 0.1, 0.1, 0.0, 0.0]),
    teacher_loops=NO,
    auxiliary_loops=NO,
    transcribed=~NO,
    true_mer=np.array([0.7, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, np.nan]),
    measures={
        "uncertainty": np.array([0.9, 0.1, 0.8, 0.2, 0.1, 0.1, np.nan, 0.1]),
        "known_hallucination": np.zeros(8),
        "missing_language": np.full(8, np.nan),
    },
)


def by_name(compared):
    return {one.name: one for one in compared.judges}


def test_the_judge_with_the_highest_recall_at_the_same_share_is_recommended():
    compared = compare_judges(LABELS, "composite", 0.4)
    judges = by_name(compared)
    distance, uncertainty, both = (judges[name] for name in ("composite", "uncertainty", "composite + uncertainty"))
    assert distance.kept == uncertainty.kept == both.kept == judges["composite and uncertainty"].kept == 0.75
    assert judges["composite or uncertainty"].kept == 0.875  # of each the first, which is the same
    assert (distance.recall, distance.good_dropped) == pytest.approx((0.5, 0.2))
    assert (uncertainty.recall, uncertainty.good_dropped, uncertainty.limit) == (1.0, 0.0, 0.2)
    assert uncertainty.shared == 0.5
    assert (distance.auc, uncertainty.auc) == pytest.approx((0.9, 1.0))
    assert judges["known hallucination"].auc == 0.5
    assert "missing language" not in judges  # nothing is known of it
    assert compared.recommended == "uncertainty"
    assert "100% of the 2 bad labels and 0% of the others, composite 50% and 20%" in compared.why
    assert "that is a hint" in compared.why


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("way", ["any", "all", "sum"])
@pytest.mark.parametrize("metric", ["per", "composite"])
def test_validation_with_the_limits_of_a_way_drops_what_the_comparison_says(metric, way, seed):
    random = np.random.default_rng(seed)
    count = 60
    rates, loops = random.random(count).round(seed % 3 + 1), random.random(count) < 0.1  # rounded: some are alike
    uncertainty = np.where(random.random(count) < 0.2, np.nan, random.random(count).round(2))
    labels = replace(
        LABELS, seconds=np.full(count, 30.0), mer=rates, per=rates, teacher_loops=loops,
        auxiliary_loops=np.zeros(count, bool), transcribed=np.ones(count, bool), measures={"uncertainty": uncertainty},
        true_mer=random.random(count),
    )  # fmt: skip
    (found,) = [one for one in compare_judges(labels, metric, 0.6).judges if one.combine == way]
    settings = {
        "metric": metric, "threshold": found.threshold, "combine": way, "weights": None, found.setting: found.limit,
    }  # fmt: skip
    dropped = []
    for loop, rate, measure in zip(loops.tolist(), rates.tolist(), uncertainty.tolist(), strict=True):
        distance = 1.0 if loop and metric == "composite" else rate
        measured = {"uncertainty": None if np.isnan(measure) else measure}
        dropped.append(
            reason_to_drop(LabelComparison(loop, False, rate, rate, distance), measured, settings) is not None
        )
    bad = labels.true_mer > 0.4
    assert found.kept == pytest.approx(1 - np.mean(dropped))
    assert found.recall == pytest.approx(np.mean(np.array(dropped)[bad]))
    assert 0.35 <= found.kept < 1


def test_without_references_the_distance_stands():
    compared = compare_judges(replace(LABELS, true_mer=None), "composite", 0.4)
    assert compared.recommended == "composite"
    assert "without references" in compared.why
    assert {(one.recall, one.good_dropped, one.auc) for one in compared.judges} == {(None, None, None)}
    assert by_name(compared)["uncertainty"].shared == 0.5


def test_labels_of_one_kind_tell_nothing():
    compared = compare_judges(replace(LABELS, true_mer=np.zeros(8)), "composite", 0.4)
    assert (compared.recommended, "all bad or all good" in compared.why) == ("composite", True)


def test_a_chunk_without_a_transcript_is_dropped_by_all():
    transcribed = np.array([True] * 7 + [False])
    judges = by_name(compare_judges(replace(LABELS, transcribed=transcribed), "composite", 0.4))
    assert judges["composite"].kept == judges["uncertainty"].kept == 5 / 8
    assert judges["known hallucination"].kept == 7 / 8


@pytest.mark.parametrize(("count", "limit"), [(0, 2.0), (1, 0.5), (2, 0.5), (3, 0.0), (9, 0.0)])
def test_no_more_are_dropped_where_some_are_alike(count, limit):
    values = np.array([0.0, 0.5, 0.5, 2.0])
    assert limit_that_drops(values, count) == limit
    assert (values > limit).sum() <= count


def test_the_terminal_shows_the_comparison():
    mistaken = replace(LABELS, mer=np.eye(8)[1], per=np.eye(8)[1])  # the distance drops a good label alone
    shown = render_calibration(calibrate(mistaken))
    assert "recall of bad" in shown.splitlines()[shown.splitlines().index("") + 1]
    assert "Recommended judge: uncertainty: it drops 50%" in shown
    assert "missing language: median" not in shown
    without = render_calibration(calibrate(replace(LABELS, true_mer=None)))
    assert "AUC" not in without
    assert "Recommended judge: composite: without references" in without
    assert "judge" not in render_calibration(calibrate(replace(LABELS, measures={})))
