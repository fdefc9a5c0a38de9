"""Subtitle tracks in, SubRip (.srt) and WebVTT (.vtt): segments with times, of a text that somebody gave."""

from __future__ import annotations

import codecs
import glob
import html
import os
import re
import unicodedata

from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.data.recording_rows import SUBTITLE_ENDINGS as ENDINGS
from k2d_hf.errors import K2DError
from k2d_hf.files.storage import exists, is_address, open_to_read
from k2d_hf.formatting import os_error_reason, quote
from k2d_hf.models.languages import is_language, language_code

LARGEST = 1 << 24  # bytes
_ARROW = "-->"
_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?", re.ASCII)
_TAG = re.compile(r"</?[a-zA-Z0-9][^<>\n]*>|\{\\[^{}\n]*\}")  # of either format; the second kind is of SubStation's
_MAP = "X-TIMESTAMP-MAP"
_FORM = "such as 00:01:02,500 --> 00:01:04,000"


def read_subtitles(path: str) -> list[Segment]:
    """The cues of a track in their order of time, in seconds; the lines of one are joined, and marks of style dropped.

    Cues that overlap end where the next begins, and those that begin together are one: times of a label only grow.

    Raises:
        K2DError: for a file that cannot be read, is no UTF-8 (or UTF-16 with its mark), or has no cue; naming the line,
            for times that are none.
    """
    lines = _text_of(path).splitlines()
    vtt = path.lower().endswith(".vtt")
    cues: list[tuple[float, float, list[str]]] = []
    inside = False
    for number, line in enumerate(lines, start=1):
        if _ARROW in line:
            _drop_index(cues[-1][2] if cues and inside else [], lines, number)
            cues.append((*_times(line, f"{path}, line {number}"), []))
            inside = True
        elif vtt and line.startswith(_MAP):
            raise K2DError(f"{path}: a piece of a broadcast, with times of its own ({_MAP}); give the whole track")
        elif inside and (line.strip() or not vtt):
            cues[-1][2].append(line)
        else:
            inside = inside and not vtt  # a blank line ends a cue of WebVTT; in SubRip text may go on after one
    if not cues:
        raise K2DError(f"{path}: no cue in it; give a track of subtitles with times {_FORM}")
    segments = [Segment(start, end, _plain(text, unescape=vtt)) for start, end, text in cues]
    return in_turn(sorted((one for one in segments if one.text), key=lambda one: (one.start, one.end)))


def track_beside(recording: str, language: str | None) -> str | None:
    """The track of a recording beside it: `talk.srt` of `talk.mp4`, or one with a language, `talk.zh.vtt`.

    Of several with a language it is the one of `language`, a code.

    Raises:
        K2DError: if several may be meant.
    """
    stem = os.path.splitext(recording)[0]
    if found := [stem + ending for ending in ENDINGS if exists(stem + ending)]:
        return found[0]
    if is_address(recording):
        return next((track for end in ENDINGS if language and exists(track := f"{stem}.{language}{end}")), None)
    tracks = sorted(path for end in ENDINGS for path in glob.glob(f"{glob.escape(stem)}.*{end}"))
    by_language = {path: os.path.basename(path)[len(os.path.basename(stem)) + 1 : -len(ENDINGS[0])] for path in tracks}
    named = [path for path, tag in by_language.items() if is_language(tag)]
    wanted = [path for path in named if language is not None and language_code(by_language[path]) == language]
    chosen = wanted or named
    if len(chosen) > 1:
        names = ", ".join(os.path.basename(path) for path in chosen)
        raise K2DError(f"{recording}: several tracks of subtitles ({names}); name one in a column subtitles")
    return chosen[0] if chosen else None


def _text_of(path: str) -> str:
    try:
        with open_to_read(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = os_error_reason(error) if isinstance(error, OSError) else str(error)
        raise K2DError(f"{path}: the subtitles cannot be read ({reason}); check the path and its permissions") from None
    if len(content) > LARGEST:
        raise K2DError(f"{path}: subtitles of more than {LARGEST:,} bytes; give a track of text")
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise K2DError(f"{path}: subtitles that are not UTF-8; save them as UTF-8") from None


def _times(line: str, where: str) -> tuple[float, float]:
    match = _TIMES.fullmatch(line)
    if match is None:
        raise K2DError(f"{where}: no times in {quote(line.strip())}; give START {_ARROW} END, {_FORM}")
    start, end = (_seconds(*match.groups()[at : at + 4]) for at in (0, 4))
    if end < start:
        raise K2DError(f"{where}: it ends before it starts ({quote(line.strip())}); correct or drop it")
    return start, end


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return whole + int((fraction or "0").ljust(3, "0")) / 1000


def _drop_index(text: list[str], lines: list[str], number: int) -> None:
    """Take the number of the next cue, which stands before its times, from the text of the one before."""
    if text and number > 1 and lines[number - 2].strip().isdecimal() and text[-1] is lines[number - 2]:
        text.pop()


def _plain(lines: list[str], *, unescape: bool) -> str:
    plain = (_TAG.sub("", line) for line in lines)
    plain = (html.unescape(line) if unescape else line for line in plain)
    return join_texts(" ".join("".join(map(_spoken, line)).split()) for line in plain)


def _spoken(character: str) -> str:
    """The character, or a blank for one of control; joiners, which some scripts are written with, stay."""
    return (
        " " if unicodedata.category(character) in ("Cc", "Cs", "Cn", "Zl", "Zp") or character == "\ufeff" else character
    )


def in_turn(segments: list[Segment]) -> list[Segment]:
    """Segments in order of time that do not overlap: one ends where the next begins, and two of one start are one."""
    turns: list[Segment] = []
    for segment in segments:
        last = turns[-1] if turns else None
        if last is not None and segment.start <= last.start:
            both = join_texts([last.text, segment.text])
            turns[-1] = Segment(last.start, max(last.end, segment.end), last.text if last == segment else both)
            continue
        if last is not None and segment.start < last.end:
            turns[-1] = Segment(last.start, segment.start, last.text)
        turns.append(segment)
    return turns
