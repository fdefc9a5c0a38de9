"""The auxiliary's pass as a map step: a batch of chunks in, the same with distance and verdict out (K2D, stage 2).

`validate_labels` is this, shard by shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import Reading
from k2d_hf.data.chunk_audio import chunk_key, read_chunk
from k2d_hf.data.chunk_schema import (
    MORE_AUXILIARIES,
    SEGMENT_VERDICTS,
    SEGMENTS,
    SEVERAL,
    SOUND,
    VALIDATION,
    VERDICT,
    columns_for,
    features_of_writer,
    known_features,
)
from k2d_hf.data.map_step import batch_of
from k2d_hf.data.utterances import chunk_names
from k2d_hf.errors import K2DError
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.keywords import takes
from k2d_hf.models.languages import language_code
from k2d_hf.transcription.map_step import Hypotheses, Source
from k2d_hf.transcription.settings import SHARD_BY_SHARD
from k2d_hf.transcription.transcribers import Transcriber
from k2d_hf.transcription.worker import Work
from k2d_hf.validation.combining import reason_to_drop
from k2d_hf.validation.distance import compare_labels, joint_distance
from k2d_hf.validation.judges import MEASURED, check_measured, labelled_measures, limits_of, measures
from k2d_hf.validation.kept_parts import TextBefore, rows_of_segments
from k2d_hf.validation.settings import ValidateSettings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Features

READ_AHEAD = 2  # batches whose audio is decoded while others are transcribed


def validation_features(unit: str = "chunk", *, several: bool = False) -> Features:
    """Columns and types that validation adds, where it judges chunks or segments, by one auxiliary or `several`."""
    from datasets import Value

    features = features_of_writer(VALIDATION)
    judged = {judge.column: Value("float64") for judge in MEASURED}
    by_segment = features_of_writer(SEGMENTS) if unit == "segment" else {}
    of_more = features_of_writer(SEVERAL) if several else {}
    verdict = {name: features.pop(name) for name in columns_for(VERDICT, among=list(features))}
    return type(features)({**features, **of_more, **judged, **by_segment, **verdict})


def added_features(settings: ValidateSettings, columns: Iterable[str], *, several: bool = False) -> Features:
    """What validation by one auxiliary or `several` writes of chunks with these columns; of segments prompts too.

    An earlier verdict on segments becomes null where it judges chunks, and so does what more auxiliaries wrote before.
    """
    segments = settings.unit == "segment"
    unit = "segment" if segments or SEGMENT_VERDICTS in columns else "chunk"
    features = validation_features(unit, several=several or MORE_AUXILIARIES in columns)
    return type(features)({**known_features(["previous_text"] if segments else []), **features})


class AuxiliaryHypotheses(Hypotheses):
    """Map step: chunks to the same chunks with what the auxiliary wrote and the verdict, the rows of `validate_labels`.

    For `Dataset.map(batched=True)`, `IterableDataset.map`, and Ray's `map_batches`. No row is left out: one that could
    not be transcribed has `keep` false, and the reason in `drop_reason`. Within a batch those of like length go
    through the model together, so a batch is to hold some `batch_size` of them.

    With `unit="segment"` and `keep="cut"` a chunk becomes the parts that are kept and those that are not: give `map`
    `remove_columns` with all columns. The first chunk of a batch then has no prompt, as nothing is known of the text
    before it; the same with `keep="mask"`.

    The auxiliary is loaded by the first call in a process. With `with_rank=True` each has the GPU of its rank.
    `more_auxiliaries` are loaded beside it, and transcribe each chunk too.

    Args:
        auxiliary: checkpoint (path, Hub id, or several to try in order); a loaded `Transcriber` stays in its process.
        more_auxiliaries: a list of others, each given likewise; the distance is that of all, by `auxiliaries_by`.
        language: code or name, such as `zh`, of chunks that carry none.

    Raises:
        K2DError: for a wrong setting, an auxiliary that is nowhere to be found, or a batch that holds no chunks.
    """

    @takes(ValidateSettings, without=SHARD_BY_SHARD)
    def __init__(
        self,
        auxiliary: Source,
        *,
        more_auxiliaries: Sequence[Source] = (),
        language: str | None = None,
        settings: ValidateSettings,
    ) -> None:
        if isinstance(more_auxiliaries, str):
            raise K2DError(f"more_auxiliaries: {more_auxiliaries!r} is no list; give a list of models")
        given = {"auxiliary": auxiliary, "more_auxiliaries": list(more_auxiliaries), "language": language}
        super().__init__(auxiliary, settings, settings.decoding(language), more=more_auxiliaries, **given)
        self.limits = limits_of(vars(settings))
        self.phones = settings.phones
        self.work = Work(
            _read,
            _transcribe,
            order=_longest_first,
            items_per_call=settings.batch_size,
            read_ahead=READ_AHEAD,
            time_limit=settings.time_limit,
        )

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        """The chunks of a batch with what validation adds, in the form in which it came; `rank` is the process'."""
        given = batch_of(batch)
        given = given.renamed(chunk_names(list(given.columns), given.features))
        check_chunks(given.columns, self.limits)
        rows = given.rows()
        items = [_span(row, key=str(index)) for index, row in enumerate(rows)]
        values, before = self.transcribe(items, rank), TextBefore()
        pairs = zip(rows, items, strict=True)
        judged = [
            part for row, item in pairs for part in self.judged(row, [of_one[item.key] for of_one in values], before)
        ]
        features = added_features(self.settings, given.columns, several=self.several)
        if self.cuts:
            return given.remade(judged, features)
        return given.extended({name: [row[name] for row in judged] for name in features}, features)

    @property
    def cuts(self) -> bool:
        """Whether more rows may come out than went in."""
        return self.settings.unit == "segment" and self.settings.keep == "cut"

    @property
    def several(self) -> bool:
        """Whether there are more auxiliaries than one."""
        return len(self.models) > 1

    def judged(
        self, row: dict[str, Any], transcripts: Sequence[dict[str, Any]], before: TextBefore
    ) -> list[dict[str, Any]]:
        """A chunk with its verdict, or the parts of it with theirs; `before` knows the chunks that came before."""
        earlier = {MORE_AUXILIARIES: None} if MORE_AUXILIARIES in row else {}
        whole = {**earlier, **self.verdict(row, transcripts)}
        if self.settings.unit == "segment":
            return rows_of_segments(row, whole, self.settings, before)
        earlier = dict.fromkeys(features_of_writer(SEGMENTS)) if SEGMENT_VERDICTS in row else {}
        return [{**row, **earlier, **whole}]

    def verdict(self, row: dict[str, Any], transcripts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The columns of one row, from what each auxiliary wrote.

        A chunk whose audio could not be read again has no transcript and is dropped; so is one that some auxiliary
        failed on. What drops a chunk at every threshold is named before the distance: calibration counts it apart.
        """
        settings, measured = self.settings, measures(row, vars(self.settings))
        texts = [one["text"] if one["reason"] is None else None for one in transcripts]
        each = [
            compare_labels(row["text"], text or "", settings.metric, normalise_by=settings.normalise_by, **self.phones)
            for text in texts
        ]
        distance = float(joint_distance([one.distance for one in each], settings.auxiliaries_by))
        comparison, known = replace(each[0], distance=distance), {**labelled_measures(row), **measured}
        failure = next((one["reason"] for one in transcripts if one["reason"] is not None), None)
        reason = failure or reason_to_drop(comparison, known, vars(settings))
        verdict = {"auxiliary_text": texts[0], "keep": reason is None, "drop_reason": reason}
        others = [
            {"text": text, "loops": one.auxiliary_loops, "mer": one.mer, "per": one.per, "distance": one.distance}
            | {"segments": None}
            for text, one in zip(texts[1:], each[1:], strict=True)
        ]
        return {**asdict(comparison), **({MORE_AUXILIARIES: others} if others else {}), **measured, **verdict}


def check_chunks(columns: Iterable[str], limits: Mapping[str, float]) -> None:
    """Raise K2DError for rows that are no chunks of recordings, or lack what a judge with a limit measures by."""
    columns = set(columns)
    missing = [name for name in ("recording", "start", "duration", "text") if name not in columns]
    if missing:
        raise K2DError(f"the chunks have no column {', '.join(missing)}: label_recordings makes them")
    check_measured(columns, limits)


@dataclass(frozen=True)
class Span:
    """A chunk to transcribe."""

    sound: dict[str, Any]  # the columns that its audio is found by
    language: str | None
    key: str
    length: int  # bytes of its label
    repeated: bool = False  # a chunk that comes twice is judged twice


def planned(chunks: Iterable[Any]) -> Iterator[tuple[Span, dict[str, Any]]]:
    """The spans to transcribe, in order, each with its row."""
    file_key = lru_cache(maxsize=1024)(content_key)  # once a file: changed meanwhile, its chunks would have two keys
    for row in chunks:
        span = _span(row)
        yield replace(span, key=f"{chunk_key(span.sound, file_key=file_key)} {span.language or ''}".rstrip()), row


def _span(row: Mapping[str, Any], key: str = "") -> Span:
    sound = {name: row[name] for name in columns_for(SOUND, among=row)}
    return Span(sound, language_code(row.get("language")), key, len(row["text"].encode()))


def _longest_first(span: Span) -> int:
    """Order of the work, so that the last is short; Whisper's tokens are bytes, of which a Han character has three."""
    return -span.length


def shard_schema() -> pyarrow.Schema:
    """What a shard keeps of a chunk: what the auxiliary wrote, before it is judged."""
    import pyarrow

    return pyarrow.schema({"text": pyarrow.string()})


def _read(span: Span) -> Reading:
    return Reading(read_chunk(span.sound))


def _transcribe(model: Transcriber, spans: Sequence[Span], audio: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    return [{"text": text} for text in model.transcribe_chunks(audio, [span.language for span in spans])]
