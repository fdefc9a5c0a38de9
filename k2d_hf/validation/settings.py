"""Settings of validation (K2D, stage 2)."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting
from k2d_hf.scoring.phonemes import Phones, phones_by
from k2d_hf.transcription.settings import DEVICE_HELP, SAME_MODEL, SAME_ROWS, SAME_SHARDS, WorkersSettings
from k2d_hf.transcription.transcribers import DecodingOptions
from k2d_hf.validation.combining import ANY, WAYS, checked_weights
from k2d_hf.validation.distance import AUXILIARIES_BY, MEDIAN, METRICS, NORMALISERS, check_choice, keeps
from k2d_hf.validation.hallucinations import checked_phrases
from k2d_hf.validation.judges import limits_of, with_limits

UNITS = ("chunk", "segment")
KEEP = ("cut", "mask")


@dataclasses.dataclass(frozen=True)
@with_limits
class ValidateSettings(WorkersSettings):
    """How chunks are checked, and which are kept."""

    metric: str = setting("composite", "Distance between the two transcripts.", choices=METRICS, after_model=True)
    threshold: float = setting(
        0.4, "Largest distance of a chunk that is kept, 0 to 1.", least=0, most=1, after_model=True
    )
    unit: str = setting(
        "chunk",
        "What is kept or dropped: the chunk, as in the paper, or each timestamped segment of the teacher's by itself.",
        choices=UNITS,
        after_model=True,
    )
    keep: str = setting(
        "cut",
        "With unit segment, what becomes of trusted segments: cut makes chunks of their own of them; mask keeps the "
        "chunk whole, and the tokens of the others have no weight in the loss.",
        choices=KEEP,
        after_model=True,
    )
    normalise_by: str = setting(
        "auxiliary", "Transcript whose length divides the errors.", choices=NORMALISERS, after_model=True
    )
    espeak_language: str | None = setting(
        None,
        "Language of espeak-ng (extra espeak), such as hi or es, whose phones per and composite compare; null reads "
        "English and Mandarin, and other scripts by character.",
        metavar="CODE",
        after_model=True,
    )
    # by length labels are sorted within a shard, so that a batch holds labels of like length
    shard_size: int = setting(256, "Chunks saved together, the most a crash can cost.", least=1, no_effect=SAME_SHARDS)
    beam_size: int = setting(1, "Number of beams; 1 is greedy.", least=1)
    no_repeat_ngram_size: int = setting(
        0, "Tokens of a run that may not come twice in a chunk, against loops; 0 is no limit.", least=0
    )
    batch_size: int = setting(8, "Chunks in one pass.", least=1, no_effect=SAME_ROWS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.", metavar="FORMAT")

    auxiliaries_by: str = setting(
        MEDIAN,
        "Distance of a label where there are more_auxiliaries: the median of those from each; or a vote, by which it "
        "is dropped where more than half of them would drop it.",
        choices=AUXILIARIES_BY,
        after_model=True,
    )
    combine: str = setting(
        ANY,
        "Judges that drop a label: any, one limit that it is beyond; all, only where it is beyond the threshold and "
        "all limits; sum, a weighted mean of distance and measures, each divided by its limit, above 1.",
        choices=WAYS,
        after_model=True,
    )
    weights: dict[str, float] | None = setting(
        None,
        "Weights of that mean by column, such as {distance: 2, uncertainty: 1}; null is all alike.",
        metavar="{COLUMN: N}",
        after_model=True,
    )
    known_phrases: str | list[str] | None = setting(
        None,
        "Phrases that count as known hallucinations beside those of this package; * stands for a name of up to 12 "
        "words or Han characters.",
        metavar="TEXT,TEXT,...",
        after_model=True,
        private=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "known_phrases", checked_phrases(self.known_phrases))
        check_choice("metric", self.metric, METRICS)
        check_choice("normalise_by", self.normalise_by, NORMALISERS)
        check_choice("auxiliaries_by", self.auxiliaries_by, AUXILIARIES_BY)
        check_choice("unit", self.unit, UNITS)
        check_choice("keep", self.keep, KEEP)
        keeps(0.0, self.threshold)
        limits_of(vars(self))
        check_choice("combine", self.combine, WAYS)
        checked_weights(vars(self))

    @property
    def phones(self) -> Phones:
        """How words are read.

        Raises K2DError for a language that espeak-ng does not have, or where it is not installed.
        """
        return phones_by(self.espeak_language)

    def decoding(self, language: str | None) -> DecodingOptions:
        """How the auxiliary transcribes a chunk, from scratch."""
        return DecodingOptions(
            language=language,
            beam_size=self.beam_size,
            condition_on_previous_text=False,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
        )
