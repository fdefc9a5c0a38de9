"""The formats that a transcript is written in, as openai/whisper names them: txt, srt, vtt, tsv and json.

Text, table and JSON have the model's own segments; SRT and WebVTT have lines that are made for a screen (`subtitles`).
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import did_you_mean
from k2d_hf.formatting import quote
from k2d_hf.transcription.settings import TranscribeSettings
from k2d_hf.transcription.subtitles import subtitles
from k2d_hf.transcription.transcribers import Word


@dataclass(frozen=True)
class Transcription:
    """A recording's transcript: its language, as given or detected, and segments in seconds from its start."""

    recording: str  # path or address
    seconds: float  # of audio
    language: str | None
    segments: Sequence[Segment]
    words: Sequence[Sequence[Word]] | None = None  # of each segment, where they were asked for
    files: Sequence[str] = ()  # that were written

    @property
    def text(self) -> str:
        """All of it on one line."""
        return join_texts(segment.text for segment in self.segments)

    def render(self, format: str, settings: TranscribeSettings | None = None) -> str:
        """The content of a file in one of the formats; K2DError for a format that is unknown."""
        (name,) = check_formats(format)
        return FORMATS[name](self, settings or TranscribeSettings())


def check_formats(text: str) -> list[str]:
    """The formats in a text with commas, each once.

    >>> check_formats("srt, vtt,srt")
    ['srt', 'vtt']
    """
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    for name in names:
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise K2DError(f"format {quote(name)}: choose from {known}{did_you_mean(name, FORMATS)}")
    return names


def _txt(transcription: Transcription, settings: TranscribeSettings) -> str:
    """A line a segment."""
    return "".join(f"{line}\n" for segment in transcription.segments if (line := _line(segment.text)))


def _tsv(transcription: Transcription, settings: TranscribeSettings) -> str:
    """A row a segment: start and end in milliseconds, and text."""
    rows = [("start", "end", "text")]
    rows += [(f"{1000 * s.start:.0f}", f"{1000 * s.end:.0f}", _line(s.text)) for s in transcription.segments]
    return "".join("\t".join(row) + "\n" for row in rows)


def _json(transcription: Transcription, settings: TranscribeSettings) -> str:
    """Everything; the keys of segments and words are openai/whisper's."""
    segments: list[dict[str, Any]] = [
        {"id": index, "start": one.start, "end": one.end, "text": one.text}
        for index, one in enumerate(transcription.segments)
    ]
    for segment, words in zip(segments, transcription.words or (), strict=False):
        segment["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
    content = {
        "text": transcription.text,
        "segments": segments,
        "language": transcription.language,
        "duration": round(transcription.seconds, 3),
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _srt(transcription: Transcription, settings: TranscribeSettings) -> str:
    """Subtitles as SubRip has them."""
    shown = enumerate(_subtitles(transcription, settings), 1)
    return "\n".join(f"{n}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{_arrowless(s.text)}\n" for n, s in shown)


def _vtt(transcription: Transcription, settings: TranscribeSettings) -> str:
    """Subtitles as WebVTT (W3C) has them, in which `&`, `<` and `>` are escaped."""
    cues = [
        f"\n{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{html.escape(s.text, quote=False)}\n"
        for s in _subtitles(transcription, settings)
    ]
    return "".join(["WEBVTT\n", *cues])


def _subtitles(transcription: Transcription, settings: TranscribeSettings) -> list[Segment]:
    return subtitles(
        transcription.segments,
        transcription.words,
        columns=settings.line_columns,
        lines=settings.lines,
        seconds=settings.line_seconds,
    )


def _clock(seconds: float, point: str) -> str:
    """A time as subtitles have it, `01:02:03,456`."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _arrowless(text: str) -> str:
    return text.replace("-->", "->")  # which would be taken for times


FORMATS: dict[str, Callable[[Transcription, TranscribeSettings], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
}
