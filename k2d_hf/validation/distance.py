"""The distance between a teacher's label and an auxiliary's transcript, and the decision to keep the label.

Cross-model validation without models (paper, Eq. 1 to 5): text in, numbers out, and what few kept labels may mean.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import did_you_mean
from k2d_hf.formatting import counted
from k2d_hf.scoring.error_rates import error_rate
from k2d_hf.scoring.phonemes import phone_codes
from k2d_hf.scoring.text import drop_special_tokens, mixed_runs, split_runs

METRICS = ("full", "trivial", "mer", "per", "composite")
COUNTING_LOOPS = ("trivial", "composite")  # those by which a looping teacher's label is dropped, whatever judges say
NORMALISERS = ("auxiliary", "teacher")
MEDIAN, VOTE = "median", "vote"
AUXILIARIES_BY = (MEDIAN, VOTE)
LOOP_NGRAM = 6
LOOP_MAX_COUNT = 5
_LONG_TEXT = 4096  # characters from which on counting all n-grams costs less than looking for some
# Share of the chunks that validation keeps at alpha 0.4 (arXiv 2407.10603, Table 2).
PAPER_KEPT = {"full": 1.0, "trivial": 0.97, "mer": 0.55, "per": 0.61, "composite": 0.74}
# Half of what the paper's own metric keeps, and far below what its strictest does: such a share says more about the
# auxiliary than about the labels.
LOW_KEPT_SHARE = PAPER_KEPT["composite"] / 2


@dataclass(frozen=True)
class LabelComparison:
    """What validation knows of one chunk; error rates may exceed 1."""

    teacher_loops: bool
    auxiliary_loops: bool
    mer: float
    per: float
    distance: float


def is_looping(text: str, ngram: int = LOOP_NGRAM, max_count: int = LOOP_MAX_COUNT) -> bool:
    """h(T) of Eq. 1: whether some character n-gram of `text` occurs more than `max_count` times.

    Occurrences may overlap. Special tokens `<|...|>` do not count. A run of white space counts as one blank and at the
    ends not at all: blanks within a repeated phrase are part of it, while how segments were joined must not make or
    hide a loop.
    """
    if ngram < 1 or max_count < 0:
        raise K2DError(f"ngram={ngram}, max_count={max_count}: give an n-gram of at least 1 and a count of at least 0")
    text = " ".join(drop_special_tokens(text).split())
    total = len(text) - ngram + 1
    if total <= max_count:
        return False
    if not _may_loop(text, ngram, max_count):
        return False
    return max(Counter([text[start : start + ngram] for start in range(total)]).values()) > max_count


def _may_loop(text: str, ngram: int, max_count: int) -> bool:
    """Whether some n-gram might occur more than `max_count` times. False is certain, and found in half the time."""
    if ngram < 3 or max_count < 4 or len(text) > _LONG_TEXT:
        return True
    # An n-gram that occurs at least five times puts the same string, two characters shorter, at two multiples of 3.
    # Proof: the strings in question lie within its occurrences at offsets 0, 1 or 2. Were all different, there would be
    # at most three for five occurrences, so two occurrences would share one and lie 1 or 2 apart. Having that period,
    # the n-gram has the same string at offsets that far apart, which leaves one for at most three occurrences, or two
    # for two each.
    windows = [text[start : start + ngram - 2] for start in range(0, len(text) - ngram + 3, 3)]
    if len(set(windows)) == len(windows):
        return False
    # And that string occurs wherever the n-gram does.
    return any(count > 1 and _occurs_more(text, window, max_count) for window, count in Counter(windows).items())


def _occurs_more(text: str, part: str, max_count: int) -> bool:
    """Whether `part` occurs more than `max_count` times; occurrences may overlap."""
    at = -1
    for _ in range(max_count + 1):
        at = text.find(part, at + 1)
        if at < 0:
            return False
    return True


def label_distance(
    teacher_text: str,
    auxiliary_text: str,
    metric: str = "composite",
    *,
    normalise_by: str = "auxiliary",
    alphabet: str = "arpabet",
    language: str = "en-us",
) -> float:
    """Distance of a teacher's label Y from an auxiliary's transcript V; 0 is agreement.

    full: 0. trivial (Eq. 1): h(Y). mer (Eq. 3) and per (Eq. 4): the error rate, above 1 where insertions abound.
    composite (Eq. 5): max(h(Y), min(1 - h(V), PER(Y, V))), so a looping teacher is 1 and a looping auxiliary condemns
    nothing. Both texts empty: 0; exactly one: 1.

    `normalise_by`: whose length divides the error rates. The paper leaves it open, its public re-implementation takes
    the auxiliary's. `alphabet` and `language` are those of `k2d_hf.scoring.phonemes.phonemes`.

    Raises K2DError for an unknown metric or normaliser.
    """
    check_choice("metric", metric, METRICS)
    check_choice("normalise_by", normalise_by, NORMALISERS)
    if metric == "full":
        return 0.0
    if metric == "trivial":
        return float(is_looping(teacher_text))
    if metric == "composite" and is_looping(teacher_text):
        return 1.0
    if metric == "composite" and is_looping(auxiliary_text):
        return 0.0
    teacher, auxiliary = mixed_runs(teacher_text), mixed_runs(auxiliary_text)
    if metric == "mer":
        return _rate(split_runs(teacher), split_runs(auxiliary), normalise_by)
    per = _phoneme_rate(teacher, auxiliary, normalise_by, alphabet, language)
    return per if metric == "per" else min(1.0, per)


def compare_labels(
    teacher_text: str,
    auxiliary_text: str,
    metric: str = "composite",
    *,
    normalise_by: str = "auxiliary",
    alphabet: str = "arpabet",
    language: str = "en-us",
) -> LabelComparison:
    """All columns that validation writes for one chunk; `distance` is `label_distance` with the same arguments.

    Raises K2DError for an unknown metric or normaliser.
    """
    check_choice("metric", metric, METRICS)
    check_choice("normalise_by", normalise_by, NORMALISERS)
    teacher, auxiliary = mixed_runs(teacher_text), mixed_runs(auxiliary_text)
    mer = _rate(split_runs(teacher), split_runs(auxiliary), normalise_by)
    per = _phoneme_rate(teacher, auxiliary, normalise_by, alphabet, language)
    teacher_loops, auxiliary_loops = is_looping(teacher_text), is_looping(auxiliary_text)
    distance = float(distances_of(teacher_loops, auxiliary_loops, mer, per)[metric])
    return LabelComparison(teacher_loops, auxiliary_loops, mer, per, distance)


def distances_of(teacher_loops: Any, auxiliary_loops: Any, mer: Any, per: Any) -> dict[str, Any]:
    """Distances of a label by all metrics (Eq. 1 to 5), or of many where the arguments are arrays [labels]."""
    return {
        "full": 0.0 * teacher_loops,
        "trivial": 1.0 * teacher_loops,
        "mer": mer,
        "per": per,
        "composite": np.maximum(teacher_loops, np.minimum(1.0 - auxiliary_loops, per)),
    }


def joint_distance(distances: Sequence[Any], by: str = MEDIAN) -> Any:
    """Distance of a label from what several auxiliaries wrote, or of many labels where each is an array [labels].

    median: the one in the middle; of an even number the mean of the two there. vote: the largest of the nearer half,
    which is beyond a threshold exactly where more than half of the distances are, so a tie keeps the label. Of an odd
    number both are the same.

    >>> [float(joint_distance([0.1, 0.3, 0.8], by)) for by in AUXILIARIES_BY]
    [0.3, 0.3]
    >>> [float(joint_distance([0.1, 0.3], by)) for by in AUXILIARIES_BY]
    [0.2, 0.1]
    """
    if len(distances) == 1:
        return distances[0]
    if by == VOTE:
        return np.sort(np.array(distances), axis=0)[(len(distances) - 1) // 2]
    return np.median(np.array(distances), axis=0)


def keeps(distance: float, threshold: float) -> bool:
    """Eq. 2: whether a label at `distance` is kept; a distance of exactly `threshold` is.

    Raises K2DError for a threshold outside [0, 1].
    """
    if not 0.0 <= threshold <= 1.0:
        raise K2DError(f"threshold {threshold} is outside [0, 1]: the paper uses 0.4, smaller keeps less")
    return distance <= threshold


def drop_reason(comparison: LabelComparison, metric: str, threshold: float) -> str | None:
    """Why a label is dropped, as a stable string to count by; None where it is kept.

    `teacher loops` where the metric counts loops and this is why; else the distance. Both texts empty is agreement
    (distance 0), so silence that both models confirm is kept.
    """
    check_choice("metric", metric, METRICS)
    if keeps(comparison.distance, threshold):
        return None
    if comparison.teacher_loops and metric in COUNTING_LOOPS:
        return "teacher loops"
    return f"distance > {threshold:.2f}"


@dataclass
class ValidationReport:
    """What validation kept and dropped; filled when it ends."""

    chunks: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # chunks, by reason
    threshold: float = 0.0
    silences: int = 0  # chunks with an empty label, such as the windows of `label.silence`
    silences_kept: int = 0
    # Of chunks that were judged by segments:
    seconds: float = 0.0
    kept_seconds: float = 0.0
    masked: Counter[str] = field(default_factory=Counter)  # distrusted segments of chunks that are kept, by reason
    masked_seconds: float = 0.0
    whole_seconds: float | None = None  # that whole chunks would keep at the same threshold; None of other chunks

    @property
    def kept(self) -> int:
        """Chunks that no reason drops."""
        return self.chunks - self.dropped.total()

    def warnings(self) -> list[str]:
        """Lines on a very low share of kept chunks, or of silence, and what it may mean; none where all is well."""
        return [line for line in (self._of_few(), self._of_silence()) if line is not None]

    def _of_silence(self) -> str | None:
        dropped = self.silences - self.silences_kept
        if self.silences_kept >= LOW_KEPT_SHARE * self.silences:
            return None
        return (
            f"validation dropped {dropped} of {counted(self.silences, 'window')} without speech, as the auxiliary "
            "wrote something there (column auxiliary_text): label.silence teaches little then; take another auxiliary"
        )

    def _of_few(self) -> str | None:
        by_segment = self.whole_seconds is not None
        kept, of = (self.kept_seconds, self.seconds) if by_segment else (self.kept, self.chunks)
        if kept >= LOW_KEPT_SHARE * of:
            return None
        reasons = (self.dropped + self.masked).most_common()
        advice = "the reasons are in the column drop_reason"
        if reasons[0][0].startswith("distance"):
            advice = (
                "the auxiliary may not understand this speech: read what it wrote (column auxiliary_text), look at "
                "`k2d calibrate`, or take another auxiliary"
            )
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        what = f"{kept / 60:.1f} of {of / 60:.1f} min" if by_segment else f"{kept} of {of} chunks"
        return (
            f"validation kept only {what} ({100 * kept / of:.0f}%, where "
            f"the paper keeps {100 * PAPER_KEPT['composite']:.0f}%), dropped are {counts}; {advice}"
        )


def _phoneme_rate(
    teacher: Iterable[str], auxiliary: Iterable[str], normalise_by: str, alphabet: str, language: str
) -> float:
    return _rate(
        phone_codes(teacher, alphabet=alphabet, language=language),
        phone_codes(auxiliary, alphabet=alphabet, language=language),
        normalise_by,
    )


def _rate(teacher: Sequence[str], auxiliary: Sequence[str], normalise_by: str) -> float:
    if normalise_by == "auxiliary":
        return error_rate(auxiliary, teacher)
    return error_rate(teacher, auxiliary)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise K2DError for a value that is none of the choices, with the nearest."""
    if value not in choices:
        near = did_you_mean(value, choices)
        raise K2DError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}{near}")
