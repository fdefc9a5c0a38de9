"""A card's section `Use`: code that decodes as the student was evaluated, and the measurements of each way of use.

It is written with the card; a push, when the student's name is known, makes it load from the repository. The engines
that opened a student are those in the record of `make test-compat`.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from k2d_hf.formatting import counted
from k2d_hf.terminal.console import minutes
from k2d_hf.transcription.decoding import (
    arguments_of_faster_whisper,
    arguments_of_pipeline,
    arguments_of_whisper_cpp,
    carried_decoding,
)

if TYPE_CHECKING:
    from k2d_hf.transcription.transcribers import DecodingOptions

RECORD = "opened_with.json"
HERE = "  # this folder, or the model's id on the Hub"
AS_EVALUATED = (
    "This decodes as the student was evaluated. Its generation config carries beams, language and what else "
    "transformers reads there; what it takes as an argument alone is passed."
)
OF_WHISPER = (
    "No recordings with references were evaluated; this decodes with the settings of openai/whisper, each window "
    "without the text before it."
)
NOT_MEASURED = "Not measured like this."
SECTION = re.compile(r"(?<=\n## Use\n).*?(?=\n## |\Z)", re.DOTALL)
_MODEL = re.compile(r'\bpipeline\(\s*"automatic-speech-recognition",\s*model=("[^"\n]*")')
_REVISION = r'(, revision="[^"\n]*")?'
_FOLDER = re.compile(r"(?<=from faster_whisper import WhisperModel\n).*?^folder = [^\n]*\n", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(?<=from pywhispercpp.model import Model\n).*?^file = [^\n]*\n", re.DOTALL | re.MULTILINE)
GGML_FILE = "ggml/ggml-model.bin"
_TEMPERATURE = re.compile(r'"temperature": ([\d., ()]+),\n')


@dataclass(frozen=True)
class Place:
    """The student's place for readers of the card."""

    repo_id: str | None = None  # `user/name` on the Hub; None is the card's own folder
    revision: str | None = None  # the branch there; None is the main one
    ctranslate2: bool = False  # whether the folder for faster-whisper lies there too
    ggml: bool = False  # likewise that for whisper.cpp

    @property
    def source(self) -> str:
        """The first arguments of a call that loads the student, as code."""
        if self.repo_id is None:
            return '"."'
        branch = f", revision={json.dumps(self.revision)}" if self.revision else ""
        return f"{json.dumps(self.repo_id)}{branch}"

    @property
    def folder(self) -> str:
        """Code for the folder of faster-whisper."""
        if not self.ctranslate2:
            made = f"k2d export {self.repo_id or '.'} --to ctranslate2 --output student-ct2"
            return f'\nfolder = "student-ct2"  # as `{made}` writes it\n'
        if self.repo_id is None:
            return '\nfolder = "ctranslate2"  # in this folder\n'
        download = f'snapshot_download({self.source}, allow_patterns="ctranslate2/*")'
        return f'from huggingface_hub import snapshot_download\n\nfolder = {download} + "/ctranslate2"\n'

    @property
    def file(self) -> str:
        """Code for the file of whisper.cpp."""
        if not self.ggml:
            made = f"k2d export {self.repo_id or '.'} --to ggml --output student-ggml"
            return f'\nfile = "student-ggml/ggml-model.bin"  # as `{made}` writes it\n'
        if self.repo_id is None:
            return f'\nfile = "{GGML_FILE}"  # in this folder\n'
        branch = f", revision={json.dumps(self.revision)}" if self.revision else ""
        download = f'hf_hub_download({json.dumps(self.repo_id)}, "{GGML_FILE}"{branch})'
        return f"from huggingface_hub import hf_hub_download\n\nfile = {download}\n"


def pipeline_arguments(options: DecodingOptions) -> list[tuple[str, str]]:
    """Names and values of `generate_kwargs`, as code."""
    arguments = arguments_of_pipeline(options)
    if len(options.temperatures) == 1:
        arguments["temperature"] = options.temperatures[0]
    return [(json.dumps(name), _literal(value)) for name, value in arguments.items()]


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def faster_whisper_section(
    place: Place, options: DecodingOptions, language: str | None, measured: Mapping[str, Any] | None, *, evaluated: bool
) -> str:
    """The section of that way of use, without a line break at its end.

    `language` is the student's, as CTranslate2 does not hold it; `measured` are the figures of this way, None
    where there are none; `evaluated` is whether anything was.
    """
    given = [f"{name}={_literal(value)}" for name, value in arguments_of_faster_whisper(options, language).items()]
    dtype = str((measured or {}).get("dtype") or "")
    model = f'folder, compute_type="{dtype}"' if re.fullmatch(r"\w+", dtype, re.ASCII) else "folder"
    call = ", ".join(['"lecture.flac"', *given])
    code = f"from faster_whisper import WhisperModel\n{place.folder}model = WhisperModel({model})\n"
    code += f"segments, info = model.transcribe({call})\n"
    line = f"\n\n{measured_line(measured)}" if measured or evaluated else ""
    return f"### faster-whisper\n\n```python\n{code}```{line}"


def whisper_cpp_section(
    place: Place, options: DecodingOptions, language: str | None, measured: None = None, *, evaluated: bool
) -> str:
    """The section of whisper.cpp, likewise; its file has no place for language and options.

    No stage runs it, so there are no figures.
    """
    given = [f"{name}={_literal(value)}" for name, value in arguments_of_whisper_cpp(options, language).items()]
    search = f', params_sampling_strategy=1, beam_search={{"beam_size": {options.beam_size}, "patience": -1.0}}'
    model = f"Model(file{search if options.beam_size > 1 else ''})"
    code = f"from pywhispercpp.model import Model\n{place.file}model = {model}\n"
    call = ", ".join(['"lecture.wav"', *given])
    code += f"segments = model.transcribe({call})  # 16 kHz; it takes other audio through ffmpeg\n"
    line = f"\n\n{NOT_MEASURED}" if measured is None and evaluated else ""
    return f"### whisper.cpp\n\n```python\n{code}```{line}"


def measured_line(figures: Mapping[str, Any] | None) -> str:
    """The measurements of a way of use in a line, or `NOT_MEASURED`."""
    if figures is None:
        return NOT_MEASURED
    loops = figures["looping_outputs"]
    data = f"{counted(figures['recordings'], 'recording')}, {minutes(figures['audio_seconds'])}"
    line = f"Measured like this ({decoded(figures)}; {data}): MER {figures['mer']:.1%}, "
    line += f"{counted(loops, 'loop') if loops else 'no loops'}, RTF {figures['rtf']:.3f}."
    if figures.get("differs") is not None:
        line += f" {figures['differs']:.1%} of its tokens differ from the text that the table is about."
    return line


def decoded(figures: Mapping[str, Any]) -> str:
    """How a model was decoded, as far as its figures have it: beams, number format, fallback, threads or device."""
    fallback = {True: "windows that look wrong again by sampling", False: "each window once", None: None}
    threads = figures.get("threads")
    where = counted(threads, "thread") if threads else figures.get("device")
    parts = [f"beam {figures['beam_size']}", figures.get("dtype"), fallback[figures.get("temperature_fallback")], where]
    return ", ".join(filter(None, parts))


def ways_of(evaluations: Any) -> dict[str, Mapping[str, Any]]:
    """Figures of the student's ways of use, of the first evaluation that has some."""
    found = (measured.figures.get("student", {}).get("ways") for measured in evaluations)
    return dict(next(filter(None, found), {}))


def turned_to(text: str, place: Place, config: Mapping[str, Any]) -> str:
    """A card whose section `Use` loads the student, of this generation config, from `place`; others' cards stay."""
    section = SECTION.search(text)
    if section is None:
        return text
    use = section[0]
    if model := _MODEL.search(use):
        use = re.sub(re.escape(model[1]) + _REVISION, lambda _: place.source, use).replace(HERE, "")
    if _FOLDER.search(use):
        use = _FOLDER.sub(lambda _: place.folder, use)
    elif place.ctranslate2:
        use = f"{use.rstrip()}\n\n{_unmeasured(faster_whisper_section, place, config, use)}\n"
    if _FILE.search(use):
        use = _FILE.sub(lambda _: place.file, use)
    elif place.ggml:
        use = f"{use.rstrip()}\n\n{_unmeasured(whisper_cpp_section, place, config, use)}\n"
    return text[: section.start()] + use + text[section.end() :]


def is_ours(text: str) -> bool:
    """Whether a card has the section that `turned_to` changes."""
    return SECTION.search(text) is not None


def _unmeasured(section: Callable[..., str], place: Place, config: Mapping[str, Any], use: str) -> str:
    options = carried_decoding(config)
    if given := _TEMPERATURE.search(use):
        ladder = literal_eval(given[1])
        options = replace(options, temperatures=ladder if isinstance(ladder, tuple) else (ladder,))
    language = re.fullmatch(r"(<\|)?([a-z]{2,3})(\|>)?", str(config.get("language")))
    return section(place, options, language and language[2], None, evaluated=AS_EVALUATED in use)


def opened_with() -> str:
    """The engines and versions in which a student of this package wrote the text that it writes in transformers 5."""
    record = json.loads((resources.files("k2d_hf.publishing") / RECORD).read_text(encoding="utf-8"))
    versions: list[dict[str, str]] = [row["versions"] for row in record["opened"]]
    own = [one["transformers"] for one in versions if one.keys() == {"transformers"}]
    own.sort(key=lambda version: [int(part) for part in version.split(".")])
    parts = [f"transformers {' and '.join(filter(None, (', '.join(own[:-1]), own[-1])))}"]
    for one in versions:
        if "faster-whisper" in one:
            converter = f"`ct2-transformers-converter` of CTranslate2 {one['ctranslate2']}"
            parts.append(f"faster-whisper {one['faster-whisper']} (converted by {converter})")
        if "pywhispercpp" in one:
            parts.append(f"whisper.cpp (pywhispercpp {one['pywhispercpp']})")
    return f"{', '.join(parts[:-1])} and {parts[-1]}, on {record['date']}"
