"""A transcriber whose transcripts are set by the test, by length of audio, and which notes what it was asked."""

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.data.chunking import Segment
from k2d_hf.transcription.transcribers import DecodingOptions, Transcript


class ScriptedTranscriber:
    """Maps seconds of audio to segments `(start, end, text)`, or, for chunks, to a text.

    After `calls_before_interrupt` recordings or chunks it is interrupted, as if by Ctrl-C.
    """

    def __init__(self, script, *, engine="faster-whisper", calls_at_once=1, calls_before_interrupt=1000, **options):
        self.script = script
        self.engine = engine
        self.batches_recordings = engine == "transformers"
        self.calls_at_once = calls_at_once
        self.calls_before_interrupt = calls_before_interrupt
        self.parameters = 12_300_000
        self.options = DecodingOptions(**options)
        self.calls = []  # the seconds of audio in each call
        self.languages = []

    def _take(self, audio, languages):
        seconds = [round(len(samples) / SAMPLE_RATE, 4) for samples in audio]
        if sum(map(len, self.calls)) + len(seconds) > self.calls_before_interrupt:
            raise KeyboardInterrupt
        self.calls.append(seconds)
        self.languages += languages or [None] * len(seconds)
        return seconds

    def transcribe(self, audio, languages=None):
        seconds = self._take(audio, languages)
        languages = languages or [None] * len(seconds)
        return [
            Transcript([Segment(*s) for s in self.script.get(length, [])], language or self.options.language or "en")
            for length, language in zip(seconds, languages, strict=True)
        ]

    def transcribe_chunks(self, audio, languages=None):
        return [self.script[length] for length in self._take(audio, languages)]
