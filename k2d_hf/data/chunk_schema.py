"""The columns of a chunk, declared once: name, type, what it is for, and who reads it (the contract between stages).

The types of data sets, what is selected of them, what a stream checks, and the card of a published set follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features

LABELLING, VALIDATION, MIXING = "labelling", "validation", "mixing"  # writers of columns
SEGMENTS = "validation of segments"  # likewise: validation, where it judges segments
SEVERAL = "validation by several auxiliaries"  # likewise
MEASURING = "labelling with `measures`"
# Uses of a column: the chunk's audio, its label, the prompt before it, the draw of its form, the verdict on it
SOUND, LABEL, PROMPT, DRAW, VERDICT = "sound", "label", "prompt", "draw", "verdict"
SOURCE = "source"  # the column that names where a chunk with a given text is from
SEGMENT_VERDICTS = "segment_verdicts"  # the column of chunks that were judged segment by segment
MORE_AUXILIARIES = "more_auxiliaries"  # the column of chunks that several auxiliaries transcribed
# Types of columns that hold a list: what each of its elements has, which may be a list in turn
_LISTS: dict[str, dict[str, Any]] = {
    "segments": {"start": "float64", "end": "float64", "text": "string"},
    "verdicts": {
        "distance": "float64", "mer": "float64", "per": "float64", "teacher_loops": "bool", "drop_reason": "string"
    },
    "hypotheses": {
        "text": "string", "loops": "bool", "mer": "float64", "per": "float64", "distance": "float64",
        "segments": {"mer": "float64", "per": "float64"},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of chunks."""

    name: str
    kind: str  # type of a value as `datasets` calls it, or one of `_LISTS`
    writer: str | None  # the stage that adds it; None of one that only a self-contained data set has
    description: str  # for cards
    uses: tuple[str, ...] = ()  # what it is read for


COLUMNS = (
    Column("audio", "audio", None, "FLAC, 16 kHz, mono: the span of the recording", (SOUND,)),
    Column("recording", "string", LABELLING, "file name of the recording", (SOUND, DRAW)),
    Column("start", "float64", LABELLING, "where the chunk starts in the recording, s", (SOUND, DRAW)),
    Column("duration", "float64", LABELLING, "its length, s; at most 30", (SOUND,)),
    Column("audio_track", "int32", LABELLING, "track of the recording, where one is named or a channel is", (SOUND,)),
    Column("audio_channel", "string", LABELLING, "channel of it, likewise; null is the mean of all", (SOUND,)),
    Column(
        "segments", "segments", LABELLING,
        "the teacher's transcript with times: start and end, s from the start of the chunk, and text", (LABEL,),
    ),
    Column("text", "string", LABELLING, "the pseudo-label: what the teacher wrote, without timestamps", (LABEL,)),
    Column("previous_text", "string", LABELLING, "the text of the chunk before it in the same recording", (PROMPT,)),
    Column(
        "next_start", "float64", LABELLING, "where the next chunk starts, s from the start of this one", (SOUND, LABEL)
    ),
    Column("language", "string", LABELLING, "language code, as given to the teacher or detected by it", (LABEL,)),
    Column(
        "uncertainty", "float64", MEASURING,
        "minus the mean log-probability of the teacher's tokens, nats: the mean of its segments by their seconds",
    ),
    Column(
        "entropy", "float64", MEASURING,
        "mean entropy of the distributions that the teacher's text was chosen from, nats, likewise",
    ),
    Column(
        "no_speech_probability", "float64", MEASURING,
        "the teacher's probability that a window has no speech, the highest of its segments",
    ),
    Column(
        "missing_language", "float64", MEASURING,
        "words or characters of another language that a stretch of such chunks lacks, by the rest of the recording",
    ),
    Column("auxiliary_text", "string", VALIDATION, "what the auxiliary model wrote for the same audio, on its own"),
    Column("teacher_loops", "bool", VALIDATION, "whether the teacher's text repeats itself"),
    Column("auxiliary_loops", "bool", VALIDATION, "likewise for the auxiliary"),
    Column("mer", "float64", VALIDATION, "mixed error rate between the two texts"),
    Column("per", "float64", VALIDATION, "phoneme error rate between them"),
    Column("distance", "float64", VALIDATION, "the distance by which chunks were kept or dropped"),
    Column(
        MORE_AUXILIARIES, "hypotheses", SEVERAL,
        "of each further auxiliary text, loops, mer, per, distance, and mer and per of segments that were judged; the "
        "column `distance` is then that of all",
    ),
    Column(
        SEGMENT_VERDICTS, "verdicts", SEGMENTS,
        "of each segment distance, mer, per, teacher_loops, and drop_reason, null where it is trusted",
    ),
    Column("chunk_distance", "float64", SEGMENTS, "distance of the whole chunk; null where it had none"),
    Column("keep", "bool", VALIDATION, "whether the chunk was kept", (VERDICT,)),
    Column("drop_reason", "string", VALIDATION, "why it was not", (VERDICT,)),
    Column(SOURCE, "string", MIXING, "the source that the text was given by; null for pseudo-labels", (VERDICT,)),
)  # fmt: skip


def columns_for(*uses: str, among: Iterable[str]) -> list[str]:
    """Names of the columns that are read for one of these uses, those that are there, in their order there."""
    wanted = {column.name for column in COLUMNS if set(column.uses) & set(uses)}
    return [name for name in among if name in wanted]


def is_kept(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk is trained on, by its `keep`.

    Null is one that nobody judged. That is what `datasets` fills in where utterances, or chunks that name their source,
    are put beside validated ones; they are kept, as their text was given.
    """
    verdict = chunk.get("keep", True)
    given = chunk.get(SOURCE) is not None or (chunk.get("start") is None and chunk.get("segments") is None)
    return given if verdict is None else bool(verdict)


def rows_of(batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a batch of columns."""
    return (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def features_of_writer(writer: str) -> Features:
    """Columns and types that a stage adds."""
    return known_features(column.name for column in COLUMNS if column.writer == writer)


def known_features(names: Iterable[str]) -> Features:
    """Types of those of some columns that chunks have; not of audio, which has several."""
    from datasets import Features, Value

    def list_of(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{name: list_of(of) if isinstance(of, Mapping) else Value(of) for name, of in fields.items()}]

    lists = {kind: list_of(fields) for kind, fields in _LISTS.items()}
    kinds = {column.name: column.kind for column in COLUMNS if column.kind != "audio"}
    known = {name: lists.get(kind) or Value(kind) for name, kind in kinds.items()}
    return Features({name: known[name] for name in names if name in known})
