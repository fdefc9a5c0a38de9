"""The error rates as `evaluate` metrics, constructed directly: no network, no loading script, no temporary files.

`MixedErrorRate().compute(predictions=[...], references=[...])`; lower is better for both.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

import datasets
import evaluate

from k2d_hf.errors import K2DError
from k2d_hf.scoring.error_rates import ErrorCounts, MixedErrors, count_errors, mixed_errors
from k2d_hf.scoring.phonemes import phonemes


class _TranscriptMetric(evaluate.Metric):
    """A metric over pairs of transcripts."""

    _description: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Transcripts are small: kept in memory no temporary file is written. Distributed metrics have to use files.
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(*args, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._description,
            citation="arXiv:2407.10603",
            inputs_description="predictions and references: lists of transcripts, one string each, in the same order",
            features=datasets.Features(dict.fromkeys(("predictions", "references"), datasets.Value("string"))),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add pairs of transcripts. Raises K2DError where the lists differ in length or hold anything but strings."""
        for name, column in (("predictions", predictions), ("references", references)):
            if column is None or isinstance(column, str):
                raise K2DError(f"{name} is {column!r}: give a list of strings")
            for index, text in enumerate(column):
                if not isinstance(text, str):
                    raise K2DError(f"{name}[{index}] is {text!r}: give a string, the empty one for no speech")
        if len(predictions) != len(references):
            raise K2DError(
                f"{len(predictions)} predictions for {len(references)} references: give one prediction per reference"
            )
        super().add_batch(predictions=predictions, references=references, **kwargs)


class MixedErrorRate(_TranscriptMetric):
    """Mixed error rate over a corpus: Han characters and words of other scripts as tokens (paper Eq. 3).

    Result: `mer`, `substitutions`, `deletions`, `insertions`, `reference_length`, and `zh_cer`, `en_wer` (None where
    the references hold no such token). With `compute(..., insertions_by_script=True)` also that: how many tokens of
    each script, `{"Han": 4, "Latin": 1, "marks": 223}`, the predictions have beyond the references, which no rate
    shows where the references have none (see `mixed_errors`).
    """

    _description = "Mixed error rate: (S + D + I) / N over Han characters and words of other scripts."

    def _compute(
        self, predictions: list[str], references: list[str], insertions_by_script: bool = False
    ) -> dict[str, Any]:
        total = sum(map(mixed_errors, references, predictions), MixedErrors())
        rates = {"mer": total.mer, **asdict(total.mixed), "zh_cer": total.zh_cer, "en_wer": total.en_wer}
        return rates | ({"insertions_by_script": dict(total.insertions_by_script)} if insertions_by_script else {})


class PhonemeErrorRate(_TranscriptMetric):
    """Phoneme error rate over a corpus (paper Eq. 4): another spelling of the same phones is no error.

    Result: `per`, `substitutions`, `deletions`, `insertions`, `reference_length`, all in phones. `alphabet` and
    `language` of `compute` are those of `k2d_hf.scoring.phonemes.phonemes`.
    """

    _description = "Phoneme error rate: (S + D + I) / N over phones of English and Mandarin, or those of espeak-ng."

    def _compute(
        self, predictions: list[str], references: list[str], alphabet: str = "arpabet", language: str = "en-us"
    ) -> dict[str, float | int]:
        phones = partial(phonemes, alphabet=alphabet, language=language)
        total = sum(map(count_errors, map(phones, references), map(phones, predictions)), ErrorCounts())
        return {"per": total.rate, **asdict(total)}
