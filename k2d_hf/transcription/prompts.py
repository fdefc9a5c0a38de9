"""The text that a model is given before the audio: a prompt as if it had been said before, and names and terms.

Neither is part of a transcript. They are for the teacher alone; a student is prompted with the text of its own chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import MAX_PROMPT_TOKENS, LabelEncoder
from k2d_hf.transcription.transcribers import DecodingOptions

ROOM = MAX_PROMPT_TOKENS - 1  # tokens of text before a window


def check_length(options: DecodingOptions, tokenizer: Any) -> None:
    """Raise K2DError for a prompt, or hot words, of more tokens than Whisper takes before a window."""
    encoder = LabelEncoder(tokenizer)
    given = {"prompt": options.prompt, "hotwords": options.hotwords}
    tokens = {name: len(encoder.text_ids(f" {text}")) for name, text in given.items() if text}
    if sum(tokens.values()) > ROOM:
        has = " and ".join(f"{name} has {count} tokens" for name, count in tokens.items())
        raise K2DError(f"{has}: Whisper takes at most {ROOM} before a window; write less")


def sharing_room(get_prompt: Callable[..., list[int]], hotword_tokens: int) -> Callable[..., list[int]]:
    """Faster-whisper's `get_prompt` where hot words and the text before share the room of a prompt.

    Its own gives that room to each of the two: what is then left for a window's text is too little, and the end of it
    is lost.
    """
    room = ROOM - hotword_tokens

    def prompt(tokenizer: Any, previous_tokens: Sequence[int], *arguments: Any, **options: Any) -> list[int]:
        return get_prompt(tokenizer, previous_tokens[-room:] if room else [], *arguments, **options)

    return prompt
