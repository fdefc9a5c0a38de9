"""Labelling with the fast engine against faster-whisper called directly, on the same files with the same settings.

The direct side is what a user would write: one `WhisperModel` with its own defaults for threads, and a loop over the
files. Ours is `label_recordings`. Both decode the files, search with five beams in int8, see the text before, and do
not sample, so that both always do the same work: `same_segments` counts the segments whose text both wrote.

    python benchmarks/labelling.py                 # the first two minutes of the quickstart's lectures
    python benchmarks/labelling.py --minutes 60    # all of them
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import datasets
import measure
import quickstart
from faster_whisper import WhisperModel

from k2d_hf import label_recordings
from k2d_hf.audio.reader import audio_duration
from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2
from k2d_hf.transcription.decoding import COMPRESSION_RATIO_OF_TEXT
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import LOGPROB_THRESHOLD, NO_SPEECH_THRESHOLD, DecodingOptions

BEAMS = 5


class Sides:
    """Both ways to label the same files; each keeps the texts of the segments of its last run."""

    def __init__(self, files: list[Path], checkpoint: Path) -> None:
        self.files = files
        self.recordings = datasets.Dataset.from_dict({"recording": [str(file) for file in files]})
        options = DecodingOptions(language=quickstart.LANGUAGE, beam_size=BEAMS, temperatures=(0.0,), device="cpu")
        self.teacher = open_transcriber(checkpoint, options, engine="faster-whisper", calls_at_once=len(files))
        self.model = WhisperModel(str(CTRANSLATE2.cached(checkpoint)), device="cpu", compute_type="int8")
        self.texts: dict[str, Counter[str]] = {}

    def direct(self) -> None:
        """A loop over the files."""
        texts: Counter[str] = Counter()
        for file in self.files:
            segments, _ = self.model.transcribe(
                str(file),
                language=quickstart.LANGUAGE,
                beam_size=BEAMS,
                temperature=0.0,
                condition_on_previous_text=True,
                compression_ratio_threshold=COMPRESSION_RATIO_OF_TEXT,
                log_prob_threshold=LOGPROB_THRESHOLD,
                no_speech_threshold=NO_SPEECH_THRESHOLD,
            )
            texts.update(segment.text for segment in segments)
        self.texts["direct"] = texts

    def ours(self) -> None:
        """Labelling as a stage does it, packing into chunks included."""
        chunks = label_recordings(self.recordings, self.teacher)
        self.texts["ours"] = Counter(segment["text"] for segments in chunks["segments"] for segment in segments)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--minutes", type=float, default=2.0, help="at most so much of each lecture")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    checkpoint = quickstart.checkpoint(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        files = [quickstart.cut(file, 60 * arguments.minutes, Path(folder)) for file in quickstart.lectures()]
        audio = sum(audio_duration(file) for file in files)
        warm = Sides([quickstart.cut(file, 10.0, Path(tempfile.mkdtemp(dir=folder))) for file in files], checkpoint)
        warm.direct()
        warm.ours()
        sides = Sides(files, checkpoint)
        seconds = measure.in_turns({"direct": sides.direct, "ours": sides.ours}, rounds=arguments.rounds, warmup=0)
    measure.report(
        "labelling",
        {
            "files": len(files),
            "audio_seconds": round(audio, 1),
            "workers": sides.teacher.calls_at_once,
            "throughput_ours_to_direct": measure.ratio(seconds, "direct", "ours"),
            "rtf": {side: measure.median([run / audio for run in runs]) for side, runs in seconds.items()},
            "seconds": {side: [round(run, 2) for run in runs] for side, runs in seconds.items()},
            "segments": {side: texts.total() for side, texts in sides.texts.items()},
            "same_segments": (sides.texts["ours"] & sides.texts["direct"]).total(),
        },
        packages=["faster-whisper", "ctranslate2"],
    )


if __name__ == "__main__":
    main()
