"""Recordings whose text is known: subtitles beside them, segments of a manifest, or the utterances of a corpus.

They become chunks as those of the teacher (K2D, stage 1), without a teacher: what has times is packed into chunks of at
most 30 s, and what has none must be an utterance of at most 30 s. They are mixed into a training (data mixing), which
the paper does not do.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from k2d_hf.audio.reader import AudioError, audio_duration
from k2d_hf.audio.selection import selection_of
from k2d_hf.data.chunk_schema import LABELLING, SOURCE, known_features
from k2d_hf.data.chunking import (
    LEAST_LISTED,
    Segment,
    chunk_rows,
    exceeds,
    is_unspaced,
    pack_segments,
    valid_segments,
)
from k2d_hf.data.recording_rows import SELECTION_COLUMNS, ColumnNames, Row, unique
from k2d_hf.data.recordings import open_rows
from k2d_hf.data.references import segment_in
from k2d_hf.data.settings import GIVEN, LabelledDataSettings
from k2d_hf.data.subtitle_files import in_turn, read_subtitles, track_beside
from k2d_hf.data.utterances import LONGER, NO_TEXT
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import dataset_of
from k2d_hf.formatting import counted, first_of, short_name
from k2d_hf.models.languages import checked_language, is_language, language_code
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 1000
NAMED = 3  # recordings named in a warning
NO_SUBTITLES, UNKNOWN_LANGUAGE = "subtitles cannot be used", "unknown language"


@dataclass
class LabelledReport:
    """What was read of a source with texts, and what was not."""

    recordings: int = 0
    chunks: int = 0
    seconds: float = 0.0  # of chunks
    skipped: list[dict[str, Any]] = field(default_factory=list)  # recording, reason, detail
    left_out: list[dict[str, Any]] = field(default_factory=list)  # recording, start, end (s), reason

    def figures(self) -> dict[str, Any]:
        """The counts, ready for JSON."""
        counts = {"recordings": self.recordings, "chunks": self.chunks, "seconds": self.seconds}
        return {**counts, "skipped": len(self.skipped), "left_out": len(self.left_out)}

    def warning(self, name: str) -> str | None:
        """What was left out, in a line that names the first ones; None where nothing was."""
        if not self.skipped and not self.left_out:
            return None
        parts = []
        for what, entries in (("recording", self.skipped), ("segment", self.left_out)):
            reasons: dict[str, list[str]] = {}
            for entry in entries:
                reasons.setdefault(entry["reason"], []).append(os.path.basename(entry["recording"]))
            for reason, names in reasons.items():
                shown = first_of(list(map(short_name, dict.fromkeys(names))), NAMED)
                parts.append(f"{counted(len(names), what)} {reason}: {shown}")
        return f"{name}: left out {'; '.join(parts)}"


class Sound(NamedTuple):
    """What times of a transcript are of: a recording, or one of its tracks or channels."""

    recording: str
    track: int | None
    channel: str | None

    @classmethod
    def of(cls, row: Row) -> Sound:
        """That of a row."""
        return cls(row.recording, row.audio_track, row.audio_channel)

    @property
    def seconds(self) -> float:
        """Its length; _Unusable where it cannot be read, or the file has no such track or channel."""
        try:
            return audio_duration(self.recording, selection_of(self.track, self.channel))
        except AudioError as error:
            raise _Unusable(error.reason, str(error)) from None

    @property
    def named(self) -> dict[str, Any]:
        """Columns of a chunk that say which track and channel."""
        return dict(zip(SELECTION_COLUMNS, (self.track, self.channel), strict=True))


class _Unusable(Exception):
    """A row that gives no chunk: a short reason, for counting, and the line of an error."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def load_labelled(
    source: Any,
    *,
    name: str = GIVEN,
    language: str | None = None,
    audio_column: str | None = None,
    reference_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    track: int | None = None,
    channel: str | int | None = None,
    report: LabelledReport | None = None,
) -> Dataset:
    """Chunks of at most 30 s with texts that were given, to be trained on beside pseudo-labels; nothing is decoded.

    A row's text is the first of: `segments`, a list of objects with `start`, `end` (s) and `text`; a path of subtitles
    (.srt, .vtt) in the column `subtitles`, or in that of the transcripts; the transcript itself, of a span where the
    row has `offset` and `duration`; subtitles beside the recording, `talk.srt` or `talk.zh.vtt` of `talk.mp4`. What
    has times is packed as the teacher's segments are, and a pause of 2 s or more ends a chunk, as nobody says what is
    in it. A transcript without times is one of an utterance, which is learned without timestamps.

    Args:
        source: as of `load_recordings`.
        name: of the source, for the column `source`, by which training gives it a share (`shares`).
        language: code or name, in the place of that of the rows.
        audio_column: the column that holds the audio; default: the one audio column, or one of the usual names.
        reference_column: the column that holds transcripts, segments, or paths of subtitles; default: the usual names.
        split: the split of a data set that has several; `train` for a Hub id.
        config: the configuration of a Hub data set that has several.
        track: as of `load_recordings`.
        channel: likewise; `louder` is that of each chunk.
        report: filled with counts and with what was left out, of which a warning tells where there is no report.

    Returns:
        The columns that labelling writes, with `keep` true and `source`. `segments` is null without times.

    Raises:
        K2DError: as `load_recordings` does, or if no row of the source can be used.
    """
    warns = report is None
    report = LabelledReport() if report is None else report
    language = checked_language(language)
    wanted = ColumnNames(audio_column, reference_column, texts=True)
    selection = selection_of(track, channel)
    rows = unique(open_rows(source, wanted, split=split, config=config, selection=selection)())
    chunks = dataset_of(_batches(_chunks(rows, language, report), name, report), labelled_features())
    if not len(chunks):
        raise K2DError(_nothing_in(source if isinstance(source, (str, os.PathLike)) else "the data set", report))
    if warns and (warning := report.warning(name)):
        logger.warning("%s", warning)
    named = any(value is not None for column in SELECTION_COLUMNS for value in chunks.unique(column))
    return chunks if named else chunks.remove_columns(list(SELECTION_COLUMNS))


def labelled_features() -> Features:
    """Columns and types of chunks whose text was given."""
    from datasets import Value

    from k2d_hf.data.chunk_schema import COLUMNS

    features = known_features(column.name for column in COLUMNS if column.writer == LABELLING)
    return type(features)({**features, "keep": Value("bool"), SOURCE: Value("string")})


def _batches(chunks: Iterable[dict[str, Any]], name: str, report: LabelledReport) -> Iterator[Sequence[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for chunk in chunks:
        report.chunks += 1
        report.seconds += chunk["duration"]
        batch.append({**chunk, "keep": True, SOURCE: name})
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    yield batch


def _chunks(rows: Iterable[Row], language: str | None, report: LabelledReport) -> Iterator[dict[str, Any]]:
    """The chunks of all rows; utterances at once, and recordings with times when all their spans are known."""
    timed: dict[Sound, tuple[list[Segment], str | None]] = {}
    for row in rows:
        try:
            spoken = _language_of(row, language)
            text = _text_of(row, spoken)
            if isinstance(text, str):
                utterance = _utterance(row, text, spoken)
                report.recordings += 1
                yield utterance
            else:
                timed.setdefault(Sound.of(row), ([], spoken))[0].extend(text)
        except _Unusable as fault:
            _skip(report, row.recording, fault)
    for sound, (segments, spoken) in timed.items():
        try:
            packed = list(_packed(sound, segments, spoken, report))
            report.recordings += 1
            yield from packed
        except _Unusable as fault:
            _skip(report, sound.recording, fault)


def _language_of(row: Row, language: str | None) -> str | None:
    if language is not None or row.language is None:
        return language
    if not is_language(row.language):
        raise _Unusable(UNKNOWN_LANGUAGE, f"{row.where}: language {short_name(row.language)} is unknown")
    return language_code(row.language)


def _text_of(row: Row, language: str | None) -> str | list[Segment]:
    """The text of a row: segments with times in the file, or that of an utterance."""
    start, duration = row.start or 0.0, row.duration
    span = (start, duration) != (0.0, None)
    if row.segments is not None:
        own = [segment_in(one, row.where) for one in row.segments]
        return [Segment(start + one.start, start + one.end, one.text) for one in own]
    try:
        track = row.subtitles
        if track is None and row.reference is None:
            track = track_beside(row.recording, language)
        if track is not None:
            cues = read_subtitles(track)
            return [cue for cue in cues if not span or start <= cue.start < start + (duration or float("inf"))]
    except K2DError as error:
        raise _Unusable(NO_SUBTITLES, str(error)) from None
    text = (row.reference or "").strip()
    if not text:
        raise _Unusable(NO_TEXT, f"{row.where}: no text, and no subtitles beside {row.recording}")
    if not span:
        return text
    return [Segment(start, start + (Sound.of(row).seconds - start if duration is None else duration), text)]


def _utterance(row: Row, text: str, language: str | None) -> dict[str, Any]:
    sound = Sound.of(row)
    seconds = sound.seconds
    if exceeds(seconds, CHUNK_SECONDS):
        raise _Unusable(LONGER, f"{row.recording}: {seconds:.1f} s with a text without times; give `segments`")
    chunk = {"recording": row.recording, "start": 0.0, "duration": seconds, "text": text, "segments": None}
    return {**chunk, "previous_text": None, "next_start": None, "language": language, **sound.named}


def _packed(
    sound: Sound, segments: list[Segment], language: str | None, report: LabelledReport
) -> Iterator[dict[str, Any]]:
    """The chunks of a recording: runs of segments without a pause that may hold speech, each packed by itself."""
    recording = sound.recording
    valid, dropped = valid_segments(segments, recording_duration=sound.seconds)
    report.left_out += [{"recording": recording, **dataclasses.asdict(span)} for span in dropped]
    runs: list[list[Segment]] = []
    for segment in in_turn(valid):
        if not runs or segment.start - runs[-1][-1].end >= LEAST_LISTED:
            runs.append([])
        runs[-1].append(dataclasses.replace(segment, text=_as_whisper_begins(segment.text)))
    if not runs:
        raise _Unusable(NO_TEXT, f"{recording}: none of its {len(segments)} segments can be used")
    for run in runs:
        yield from ({**chunk, **sound.named} for chunk in chunk_rows(recording, pack_segments(run), language=language))


def _as_whisper_begins(text: str) -> str:
    """The text of a segment, with the blank with which Whisper begins one in a script that parts words by blanks."""
    text = text.strip()
    return text if is_unspaced(text[0]) else f" {text}"


def _skip(report: LabelledReport, recording: str, fault: _Unusable) -> None:
    report.skipped.append({"recording": recording, "reason": fault.reason, "detail": fault.detail})
    logger.info("left out %s", fault.detail)


def _nothing_in(source: Any, report: LabelledReport) -> str:
    """The error for a source of which nothing can be used: how many by reason, and the first in full."""
    counts: dict[str, int] = {}
    for entry in [*report.skipped, *report.left_out]:
        counts[entry["reason"]] = counts.get(entry["reason"], 0) + 1
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    first = next((entry["detail"] for entry in report.skipped), "no row has a text")
    return f"{source}: no text to learn from ({reasons}); the first: {first}"


def load_source(name: str, settings: LabelledDataSettings) -> tuple[Dataset, LabelledReport]:
    """The chunks of a source as its settings name it, and what was left out."""
    report = LabelledReport()
    given = {key: value for key, value in vars(settings).items() if key not in ("share", "streaming")}
    return load_labelled(name=name, report=report, **given), report
