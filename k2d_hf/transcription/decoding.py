"""The decoding options as arguments of each engine, in one place.

The engines call with these, a student's generation config carries those that transformers reads there, and the
snippets of its card pass the rest: so a student decodes by default as it was evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from k2d_hf.files.storage import write_atomic
from k2d_hf.transcription.transcribers import LOGPROB_THRESHOLD, NO_SPEECH_THRESHOLD, DecodingOptions

COMPRESSION_RATIO_OF_TOKENS = 1.35  # of token ids, which is what transformers measures
COMPRESSION_RATIO_OF_TEXT = 2.4  # of the text's UTF-8 bytes, as openai/whisper and faster-whisper do
# Without evaluation: the settings of openai/whisper, but not the student's own earlier text, on which a small model
# drifts, and which `pipeline` does not give either.
NOT_EVALUATED = DecodingOptions(condition_on_previous_text=False)
# Of `generate`'s arguments those that it reads from a generation config. It reads the other thresholds there, too, and
# then fails: only as arguments do they make it keep the scores that they are compared with. Temperatures are no field.
CARRIED = ("num_beams", "compression_ratio_threshold", "condition_on_prev_tokens")


def transformers_arguments(options: DecodingOptions) -> dict[str, Any]:
    """Arguments of `WhisperForConditionalGeneration.generate`; without language, task and prompt."""
    return {
        "num_beams": options.beam_size,
        "temperature": options.temperatures,
        "logprob_threshold": LOGPROB_THRESHOLD,
        "compression_ratio_threshold": COMPRESSION_RATIO_OF_TOKENS,
        "no_speech_threshold": NO_SPEECH_THRESHOLD,
        "condition_on_prev_tokens": options.condition_on_previous_text,
    }


def faster_whisper_arguments(options: DecodingOptions) -> dict[str, Any]:
    """Arguments of `faster_whisper.WhisperModel.transcribe`; without the language."""
    return {
        "task": options.task,
        "beam_size": options.beam_size,
        "best_of": options.beam_size,
        "temperature": list(options.temperatures),
        "condition_on_previous_text": options.condition_on_previous_text,
        "compression_ratio_threshold": COMPRESSION_RATIO_OF_TEXT,
        "log_prob_threshold": LOGPROB_THRESHOLD,
        "no_speech_threshold": NO_SPEECH_THRESHOLD,
        "initial_prompt": options.prompt,
        "hotwords": options.hotwords,
    }


FASTER_WHISPER_DEFAULTS = faster_whisper_arguments(DecodingOptions())  # as its `transcribe` has them


def arguments_of_pipeline(options: DecodingOptions) -> dict[str, Any]:
    """The `generate_kwargs` with which a pipeline decodes so, where the generation config carries the rest.

    Beams are among them: transformers 4.50 to 4.57 search with five, whatever the generation config has.
    """
    arguments = transformers_arguments(options)
    return {name: value for name, value in arguments.items() if name == "num_beams" or name not in CARRIED}


def arguments_of_faster_whisper(options: DecodingOptions, language: str | None) -> dict[str, Any]:
    """Arguments of its `transcribe` to decode so: the language, and what is not its default."""
    arguments = faster_whisper_arguments(options)
    changed = {name: value for name, value in arguments.items() if value != FASTER_WHISPER_DEFAULTS[name]}
    if len(options.temperatures) == 1:
        changed.pop("best_of", None)  # of sampling, which does not happen
    return {**({"language": language} if language else {}), **changed}


def arguments_of_whisper_cpp(options: DecodingOptions, language: str | None) -> dict[str, Any]:
    """Arguments of pywhispercpp's `transcribe` to decode so, but for the beams, which its model takes.

    Its thresholds are those of openai/whisper by default, of which it measures one otherwise (entropy).
    """
    arguments: dict[str, Any] = {"language": language} if language else {}
    arguments |= {"translate": True} if options.task == "translate" else {}
    arguments["no_context"] = not options.condition_on_previous_text
    return arguments | ({"temperature_inc": 0.0} if len(options.temperatures) == 1 else {})


def carry_decoding(folder: str | Path, options: DecodingOptions, *, replace: bool = True) -> bool:
    """Write the decoding options that transformers reads there into the `generation_config.json` of a student's folder.

    Nothing else in it changes; language and task are there from the training on. Without `replace` only missing values
    are added. A file that has them all stays as it is; returns whether it was written.
    """
    path = Path(folder) / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    arguments = transformers_arguments(options)
    carried = {name: arguments[name] for name in CARRIED if replace or config.get(name) is None}
    if config | carried == config:
        return False
    write_atomic(str(path), (json.dumps(config | carried, indent=2, sort_keys=True) + "\n").encode())
    return True


def carried_decoding(config: Mapping[str, Any]) -> DecodingOptions:
    """The decoding options in a student's generation config; the others as in `NOT_EVALUATED`."""
    names = {"beam_size": "num_beams", "condition_on_previous_text": "condition_on_prev_tokens"}
    carried = {name: config[theirs] for name, theirs in names.items() if config.get(theirs) is not None}
    return replace(NOT_EVALUATED, **carried)
