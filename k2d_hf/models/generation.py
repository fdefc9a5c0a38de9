"""Generation configs of Whisper, complete: what an old one lacks is built from the tokenizer, by name.

Fine-tunes from before 2023 have no `generation_config.json`, or one without languages, tasks and timestamps; their
`config.json` holds forced ids in place of a language. transformers then refuses `language=` and timestamps, and a
student (K2D, stage 3) would inherit that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from k2d_hf.models.whisper_tokens import TASKS, SpecialTokens, language_code, token_id

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

MAX_INITIAL_TIMESTAMP = 50  # a transcript starts within the first second, as in OpenAI's decoding
_STOCK_END_OF_TEXT = (50256, 50257)  # of the English-only vocabulary and of the others
_NEVER_WRITTEN = ("<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")
_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # its name, now and in the first files
# Without one of these a model is refused a language, or timestamps, or writes 20 tokens and no more, or worse ones.
_NEEDED = (
    *("decoder_start_token_id", "eos_token_id", "pad_token_id", "no_timestamps_token_id", "is_multilingual"),
    *("max_length", "prev_sot_token_id", "max_initial_timestamp_index", "suppress_tokens", "begin_suppress_tokens"),
)
_OF_MULTILINGUAL = ("lang_to_id", "task_to_id")
MOVED_FIELDS = ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens")  # in config.json once


def generation_fields(tokenizer: Any, *, max_length: int) -> dict[str, Any]:
    """The generation config of OpenAI's checkpoints as far as a tokenizer has it; ids are looked up by name.

    `max_length` is the decoder's positions (`config.max_target_positions`). K2DError if the tokenizer is not Whisper's.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    special, vocabulary = SpecialTokens.of(tokenizer), tokenizer.get_vocab()
    fields: dict[str, Any] = {
        "bos_token_id": special.end_of_text,
        "eos_token_id": special.end_of_text,
        "pad_token_id": special.end_of_text,
        "decoder_start_token_id": special.start_of_transcript,
        "prev_sot_token_id": special.start_of_previous,
        "no_timestamps_token_id": special.no_timestamps,
        "is_multilingual": special.multilingual,
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP,
        "max_length": max_length,
        "suppress_tokens": _suppressed(vocabulary, special),
        # A transcript never starts with a space or with its end.
        "begin_suppress_tokens": [*([vocabulary["Ġ"]] if "Ġ" in vocabulary else []), special.end_of_text],
    }
    if special.multilingual:
        languages = {f"<|{code}|>" for code in LANGUAGES} & vocabulary.keys()
        fields["lang_to_id"] = {name: vocabulary[name] for name in sorted(languages)}
        fields["task_to_id"] = {task: token_id(tokenizer, f"<|{task}|>") for task in TASKS}
    return fields


def generation_gaps(config: Any) -> list[str]:
    """The fields that a generation config needs and does not have."""
    lacking = [name for name in _NEEDED if getattr(config, name, None) is None]
    if getattr(config, "is_multilingual", None) is not False:
        lacking += [name for name in _OF_MULTILINGUAL if not getattr(config, name, None)]
    return lacking


def complete_generation_config(
    model: WhisperForConditionalGeneration, tokenizer: Callable[[], Any]
) -> WhisperForConditionalGeneration:
    """Complete the generation config of a model for today's transformers; what it has stays.

    Ids that were forced on the decoder, in either config, become the language and the task that they stand for, and
    are removed: they clash with `language=`. What an old `config.json` suppresses moves to the generation config.

    The model is changed, and returned; `tokenizer` is called only where something is missing, and K2DError is raised
    where what it gives is not Whisper's.
    """
    config: Any = model.generation_config  # Whisper's own fields are known to no type
    forced = getattr(config, "forced_decoder_ids", None) or getattr(model.config, "forced_decoder_ids", None)
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if config._from_model_config or getattr(config, name, None) is None:
            setattr(config, name, _set_in(model.config, name))
    if lacking := generation_gaps(config):
        fields = generation_fields(tokenizer(), max_length=model.config.max_target_positions)
        for name in fields.keys() & set(lacking):
            setattr(config, name, fields[name])
    _name_what_is_forced(config, forced)
    for name in MOVED_FIELDS:
        if getattr(model.config, name, None) is not None:
            setattr(model.config, name, None)
    config._from_model_config = False  # else `generate` makes a new one, of the model's config, and forgets the rest
    return model


def _set_in(config: WhisperConfig, name: str) -> list[int] | None:
    """A value of a model's config, but not the default of its class, which is an English-only model's."""
    value, default = getattr(config, name, None), getattr(type(config)(), name)
    if value is None or (default is not None and list(value) == list(default)):
        return None
    return list(value)


def _name_what_is_forced(config: Any, forced: Any) -> None:
    """Set language and task from `forced` ([[position, id], ...]), where they are not set, and force nothing more."""
    if config.is_multilingual and forced:
        ids = [pair[1] for pair in forced]
        if getattr(config, "language", None) is None:
            languages = getattr(config, "lang_to_id", None) or {}
            config.language = next((language_code(name) for name, index in languages.items() if index in ids), None)
        if getattr(config, "task", None) is None:
            tasks = getattr(config, "task_to_id", None) or {}
            config.task = next((task for task, index in tasks.items() if index in ids), TASKS[0])
    config.forced_decoder_ids = None


def _suppressed(vocabulary: dict[str, int], special: SpecialTokens) -> list[int]:
    """Ids that no transcript holds: signs for what is not speech, as OpenAI lists them, and special tokens."""
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

    signs = NON_SPEECH_TOKENS_MULTI if special.multilingual else NON_SPEECH_TOKENS
    stock = special.end_of_text in _STOCK_END_OF_TEXT  # the list is of ids, and so of OpenAI's vocabularies alone
    names = (*_NEVER_WRITTEN, next((name for name in _NO_SPEECH if name in vocabulary), ""))
    ids = [index for index in signs if stock and index < special.end_of_text]
    return ids + sorted(vocabulary[name] for name in names if name in vocabulary)
