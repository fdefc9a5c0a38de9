"""Whisper's token layout: special tokens looked up by name, timestamps, prompts and labels.

The one place for special tokens and prompts of labelling, distillation and evaluation (K2D, stage 3: teacher forcing
on the timestamped pseudo-label).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.formatting import is_text, quote
from k2d_hf.models.languages import language_code as language_code

CHUNK_SECONDS = 30.0  # what Whisper's encoder sees at once
TIMESTAMP_SECONDS = 0.02  # one timestamp token a step of this length
MAX_TARGET_TOKENS = 448  # positions of Whisper's decoder
MAX_SAMPLED_TOKENS = MAX_TARGET_TOKENS // 2  # what openai/whisper and CTranslate2 let a model write about one chunk
MAX_PROMPT_TOKENS = MAX_TARGET_TOKENS // 2  # <|startofprev|> included
TASKS = ("transcribe", "translate")
IGNORED = -100  # label of a position that is not supervised
_MULTILINGUAL_END_OF_TEXT = 50257  # English-only vocabularies have one token fewer before it

_SURROGATES = re.compile("[\ud800-\udfff]")


def strip_special(text: str) -> str:
    """`text` without anything that reads like a special token, so that a transcript can never inject one."""
    if "<|" not in text:
        return text
    # What is left may close up to another special token, and on from there: a stack finds them all in one go.
    kept: list[str] = []
    bars: list[int] = []  # where `kept` has a |
    for character in text:
        kept.append(character)
        if character == "|":
            bars.append(len(kept) - 1)
        elif character == ">" and len(bars) > 1 and kept[-2] == "|" and "<" in kept[max(bars[-2] - 1, 0) : bars[-2]]:
            del kept[bars[-2] - 1 :]
            del bars[-2:]
    return "".join(kept)


def plain_text(text: str) -> str:
    """`text` as it is tokenised: without anything like a special token, and without lone surrogates."""
    return strip_special(_SURROGATES.sub("", text))


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens of one Whisper vocabulary; English-only vocabularies have no language or task."""

    end_of_text: int
    start_of_transcript: int
    start_of_previous: int
    no_timestamps: int
    timestamp_begin: int
    multilingual: bool

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """The ids of `tokenizer`, by name; K2DError if it is not Whisper's."""
        end_of_text = token_id(tokenizer, "<|endoftext|>")
        no_timestamps = token_id(tokenizer, "<|notimestamps|>")
        return cls(
            end_of_text=end_of_text,
            start_of_transcript=token_id(tokenizer, "<|startoftranscript|>"),
            start_of_previous=token_id(tokenizer, "<|startofprev|>"),
            no_timestamps=no_timestamps,
            timestamp_begin=no_timestamps + 1,  # many tokenizer files list no timestamp by name
            multilingual=end_of_text >= _MULTILINGUAL_END_OF_TEXT,
        )

    def timestamp(self, seconds: float) -> int:
        """Id of the timestamp nearest to `seconds` (0 to 30 s from the chunk's start); K2DError unless finite."""
        if not math.isfinite(seconds):
            raise K2DError(f"a segment at {seconds} s: give its times in seconds from the start of its chunk")
        return self.timestamp_begin + round(min(max(seconds, 0.0), CHUNK_SECONDS) / TIMESTAMP_SECONDS)


def token_id(tokenizer: Any, name: str) -> int:
    """Id of the special token `name`; K2DError if the vocabulary has no such token."""
    index = tokenizer.convert_tokens_to_ids(name)
    if index is None or tokenizer.convert_ids_to_tokens(index) != name:
        raise K2DError(f"the tokenizer has no token {name}: is it a Whisper tokenizer?")
    return index


class LabelEncoder:
    """Turns chunks into the decoder's token ids, with or without timestamps and prompt.

    `max_tokens` is the decoder's positions (`config.max_target_positions`).
    """

    def __init__(self, tokenizer: Any, *, task: str = "transcribe", max_tokens: int = MAX_TARGET_TOKENS) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.max_tokens = max_tokens
        self.special = SpecialTokens.of(tokenizer)

    @property
    def start_length(self) -> int:
        """How many ids `start_ids` gives."""
        return 3 if self.special.multilingual else 1

    def start_ids(self, language: str | None) -> list[int]:
        """`<|startoftranscript|><|language|><|task|>`; the first alone for an English-only vocabulary.

        K2DError if a multilingual vocabulary is used without a language, or does not know it.
        """
        if not self.special.multilingual:
            return [self.special.start_of_transcript]
        if not language:
            raise K2DError("no language for the labels: set language, such as language='zh' for Mandarin-English")
        language_id = self.tokenizer.convert_tokens_to_ids(f"<|{language}|>") or 0 if is_text(language) else 0
        task_ids = [token_id(self.tokenizer, f"<|{task}|>") for task in TASKS]
        # languages lie between <|startoftranscript|> and the tasks; an unknown name has the id of another token
        if not self.special.start_of_transcript < language_id < min(task_ids):
            raise K2DError(
                f"language {quote(language)} is unknown to this vocabulary: give a code such as 'zh' or 'en'"
            )
        return [self.special.start_of_transcript, language_id, token_id(self.tokenizer, f"<|{self.task}|>")]

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text; special tokens and lone surrogates in it are removed."""
        return self.tokenizer.encode(plain_text(text), add_special_tokens=False)

    def text_spans(self, text: str) -> list[tuple[int, int]]:
        """Which characters of `plain_text(text)` each of its ids spells; one may spell a part of a character."""
        return self.tokenizer(plain_text(text), add_special_tokens=False, return_offsets_mapping=True).offset_mapping

    @staticmethod
    def text_without_times(text: str, segments: Sequence[Mapping[str, Any]] | None) -> str:
        """The text of a label without timestamps.

        Whether Whisper begins with a blank depends on language and word; `text` is stripped, segments are not.
        """
        return (" " if segments and segments[0]["text"].startswith(" ") else "") + text

    def label_ids(
        self,
        text: str,
        segments: Sequence[Mapping[str, Any]] | None,
        *,
        language: str | None,
        timestamps: bool,
        next_start: float | None = None,
    ) -> list[int]:
        """The complete label, `<|startoftranscript|>` to `<|endoftext|>`.

        Args:
            text: the chunk's text, used without timestamps.
            segments: mappings with `start`, `end` (s from the chunk's start) and `text` as the teacher wrote it; None
                where times are unknown, and the label has no timestamps.
            language: language code, such as `zh`.
            timestamps: which of the two forms.
            next_start: where a segment begins that the window cuts off, in seconds from its start: with timestamps the
                label ends with that start alone, as Whisper's own do (arXiv 2212.04356, section 2.3).
        """
        ids = self.start_ids(language)
        if timestamps and segments is not None:
            if not segments:  # silence: Whisper may not end before a first timestamp
                ids.append(self.special.timestamp(0.0))
            for segment in segments:
                start, end = self.special.timestamp(segment["start"]), self.special.timestamp(segment["end"])
                ids += [start, *self.text_ids(segment["text"]), end]
            if next_start is not None:
                ids.append(max(self.special.timestamp(next_start), ids[-1]))
        else:
            ids += [self.special.no_timestamps, *self.text_ids(self.text_without_times(text, segments))]
        return [*ids, self.special.end_of_text]

    def prompt_ids(self, previous_text: str | None, *, room: int) -> list[int]:
        """`<|startofprev|>` and the end of the text of the chunk before; empty without such text or without room.

        `room` is the tokens that the label leaves free; the prompt is cut to it from its far end, never the label.
        """
        room = min(room, MAX_PROMPT_TOKENS)
        text = plain_text(previous_text or "").strip()
        if not text or room < 2:
            return []
        return [self.special.start_of_previous, *self.text_ids(" " + text)[-(room - 1) :]]

    def teacher_forcing(self, label_ids: Sequence[int], prompt_ids: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """Decoder inputs and labels, shifted by one; the prompt up to `<|startoftranscript|>` is not supervised.

        Both are of length `len(prompt_ids) + len(label_ids) - 1`.
        """
        return [*prompt_ids, *label_ids][:-1], [IGNORED] * len(prompt_ids) + list(label_ids[1:])
