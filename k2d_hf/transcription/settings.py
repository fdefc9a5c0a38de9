"""Settings of every stage that transcribes: where its model works, and what stops it."""

from __future__ import annotations

import dataclasses

from k2d_hf.audio.selection import CHANNEL_HELP, MEAN, TRACK_HELP, Selection, selection_of
from k2d_hf.files.settings import setting
from k2d_hf.transcription.engines import ENGINES, SPREAD_ENGINES
from k2d_hf.transcription.subtitles import MAX_COLUMNS, MAX_LINES, MAX_SECONDS
from k2d_hf.transcription.transcribers import DecodingOptions, temperatures

TIME_LIMIT = 600.0  # s for 30 s of audio: twenty times as long as it lasts
DEVICE_HELP = "Device: auto, cpu, cuda, cuda:1, ..."

# Why the result of a stage is the same whatever the value of some settings.
SAME_MODEL = "the same numbers but for rounding, wherever they are computed"
SAME_TEXT = "an assistant only guesses, and the model decides"
SAME_ROWS = "each row is worked on by itself, however many go together"
SAME_SHARDS = "finished work is found whatever shards it was cut into"
SAME_WORK = "who does the work, not what it is"
# Those that a map step has no use for: it knows no shards, and whoever maps says where.
SHARD_BY_SHARD = ("shard_size", "address", "workers", "worker_cpus", "worker_gpus")


@dataclasses.dataclass(frozen=True)
class WorkersSettings:
    """Where a model transcribes, and what stops it."""

    engine: str = setting(
        "auto",
        "Engine; auto is faster-whisper where installed; ray or ray+ENGINE runs it on a Ray cluster.",
        choices=SPREAD_ENGINES,
    )
    address: str | None = setting(
        None, "Address of the Ray cluster, such as auto or ray://HOST:10001; null starts one here.", no_effect=SAME_WORK
    )
    workers: int | None = setting(
        None,
        "Number of workers on the Ray cluster, a model each; null is as many as fit.",
        least=1,
        no_effect=SAME_WORK,
    )
    worker_cpus: float = setting(1.0, "Cores of each Ray worker.", least=0, no_effect=SAME_WORK)
    worker_gpus: float = setting(0.0, "GPUs of each Ray worker, or a share of one.", least=0, no_effect=SAME_WORK)
    time_limit: float | None = setting(
        TIME_LIMIT,
        "Longest time for 30 s of audio before it is skipped; null is no limit.",
        least=0.1,
        metavar="SECONDS",
        after_model=True,
    )


class LongFormSettings:
    """How a model transcribes whole recordings: what labelling and evaluation share but for the defaults."""

    beam_size: int
    condition_on_previous_text: bool
    temperature_fallback: bool
    batch_size: int
    device: str
    dtype: str

    def decoding(self, language: str | None) -> DecodingOptions:
        """How a model is decoded with these settings."""
        return DecodingOptions(
            language=language,
            beam_size=self.beam_size,
            condition_on_previous_text=self.condition_on_previous_text,
            temperatures=temperatures(fallback=self.temperature_fallback),
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
        )


@dataclasses.dataclass(frozen=True)
class GivenSettings(LongFormSettings):
    """What a model is given of a recording, and before it: what labelling and `k2d transcribe` share."""

    vad: bool = setting(False, "Long pauses left out by a voice detector (Silero); times stay those of the recording.")
    prompt: str | None = setting(
        None,
        "Text given before the first window, as if it had been said there: names, spelling, punctuation.",
        metavar="TEXT",
        private=True,
    )
    hotwords: str | None = setting(
        None,
        "Names and terms given before every window, with blanks or commas between.",
        metavar="TEXT",
        private=True,
    )

    assistant: str | None = setting(
        None,
        "Student whose guesses the model checks, so that its own greedy text comes faster: folder or Hub id. It has "
        "the model's encoder; for the engine transformers with one beam.",
        metavar="MODEL",
        no_effect=SAME_TEXT,
    )

    def decoding(self, language: str | None) -> DecodingOptions:
        """How a model is decoded with these settings."""
        options = super().decoding(language)
        given = {name: getattr(self, name) for name in ("vad", "prompt", "hotwords", "assistant")}
        return dataclasses.replace(options, **given)


@dataclasses.dataclass(frozen=True)
class TranscribeSettings(GivenSettings):
    """How recordings are transcribed into files: text, subtitles and tables."""

    format: str | None = setting(
        None,
        "Formats, with commas where there are several: txt, srt, vtt, tsv, json; null is txt,srt on the command line "
        "and no files in Python.",
    )
    track: int | None = setting(None, TRACK_HELP, least=0)
    channel: int | str = setting(MEAN, CHANNEL_HELP, metavar="mean|louder|N")
    engine: str = setting("auto", "Engine; auto is faster-whisper where installed.", choices=ENGINES)
    beam_size: int = setting(5, "Number of beams; 1 is greedy.", least=1)
    condition_on_previous_text: bool = setting(False, "Prompt with the text before, on which small models drift.")
    temperature_fallback: bool = setting(True, "Second decoding, by sampling, of windows that look wrong.")
    batch_size: int = setting(8, "Recordings in one pass, where the engine batches them.", least=1, no_effect=SAME_ROWS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.", metavar="FORMAT")
    time_limit: float | None = setting(
        TIME_LIMIT,
        "Longest time for 30 s of audio before it is given up; null is no limit.",
        least=0.1,
        metavar="SECONDS",
    )
    word_times: bool = setting(False, "Times of words, for subtitles and JSON; faster-whisper alone has them.")
    line_columns: int = setting(MAX_COLUMNS, "Most columns of a line of subtitles; a Han character takes two.", least=2)
    lines: int = setting(MAX_LINES, "Most lines of a subtitle.", least=1)
    line_seconds: float = setting(MAX_SECONDS, "Longest time that a subtitle stays.", least=0.1, metavar="SECONDS")

    @property
    def selection(self) -> Selection:
        """The track and channel of the recordings."""
        return selection_of(self.track, self.channel)

    def __post_init__(self) -> None:
        _ = self.selection  # which raises where it is none
