"""Settings of the data: where recordings come from, and what makes long ones of utterances."""

from __future__ import annotations

import dataclasses
from typing import Any

from k2d_hf.audio.selection import CHANNEL_HELP, MEAN, TRACK_HELP, selection_of
from k2d_hf.files.settings import setting
from k2d_hf.scoring.normalisers import MIXED, NORMALISERS

LONGEST_PAUSE = 600.0  # s
GIVEN = "given"  # the name of the one source that has none


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where recordings come from: the arguments of `load_recordings`."""

    source: str = setting(
        help="a folder of audio, a manifest (JSONL, CSV) with a path column, or a data set; or the address of one",
        metavar="PATH",
    )
    split: str | None = setting(None, "Split of a data set with several; null is train for one of the Hub.")
    config: str | None = setting(None, "Configuration of a Hub data set with several.")
    audio_column: str | None = setting(None, "Column of the audio, where it has none of the usual names.")
    reference_column: str | None = setting(None, "Column of the transcripts, where it has none of the usual names.")
    track: int | None = setting(None, TRACK_HELP, least=0)
    channel: int | str = setting(MEAN, CHANNEL_HELP, metavar="mean|louder|N")
    streaming: bool = setting(False, "Read as a stream, for millions of recordings; no list of them is held.")

    def __post_init__(self) -> None:
        selection_of(self.track, self.channel)  # which raises where it is none


@dataclasses.dataclass(frozen=True)
class LabelledDataSettings(DataSettings):
    """Speech whose text is known, learned from beside the pseudo-labels: the arguments of `load_labelled`."""

    reference_column: str | None = setting(
        None,
        "Column of the transcripts, of segments with times, or of paths of subtitles (.srt, .vtt), where it has none "
        "of the usual names.",
    )
    streaming: bool = setting(False, "Always false: the chunks of an epoch are drawn from all of them.")
    language: str | None = setting(
        None, "Language of this source, in the place of that of its rows or the recipe's.", metavar="CODE"
    )
    share: float | None = setting(
        None,
        "Share of an epoch's chunks; null is all chunks of the source, once an epoch.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class EvaluationDataSettings(DataSettings):
    """A test set: the same, how utterances become long recordings, and how the set is scored."""

    streaming: bool = setting(False, "Always false: evaluation holds its recordings.")
    join_by: str | None = setting(
        None,
        "Column such as session_id; utterances of equal value become one recording of that name, in order.",
        metavar="COLUMN",
    )
    join_pause: float = setting(
        0.0, "Silence between joined utterances.", least=0, most=LONGEST_PAUSE, metavar="SECONDS"
    )
    language: str | None = setting(
        None, "Language of the set, given to all models, as a code or a name; null is that of all.", metavar="CODE"
    )
    normaliser: str = setting(
        MIXED,
        "What rates are counted over: mixed tokens alone, or for English the words that Whisper's own leaves, too.",
        choices=NORMALISERS,
    )
    benchmark_task: str | None = setting(
        None,
        "Task (task_id of its eval.yaml) of a set that is a benchmark of the Hub; the student's rate is then published "
        "in .eval_results/.",
        metavar="TASK",
    )

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `k2d_hf.evaluation.long_form.load_long_form`."""
        of_others = ("streaming", "language", "normaliser", "benchmark_task")
        return {name: value for name, value in vars(self).items() if name not in of_others}
