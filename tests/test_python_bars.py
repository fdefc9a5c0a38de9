"""The bars of functions that are called from Python: as `datasets.map` has them, and hidden likewise."""

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber
from tiny_whisper import make_tiny_whisper

from k2d_hf import evaluate_model, label_recordings, validate_labels
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.targets.targets import add_soft_targets


@pytest.fixture(scope="module")
def calls(tmp_path_factory, processor):
    """Each function with its data, the title of its bar and what the bar counts at its end."""
    recording = str(tmp_path_factory.mktemp("sound") / "a.wav")
    soundfile.write(recording, np.random.default_rng(0).normal(0, 0.05, 4 * 16000), 16000)
    script = {4.0: [(0.0, 4.0, "今天")], 30.0: []}
    recordings = Dataset.from_dict({"recording": [recording], "reference": ["今天"]})
    chunks = label_recordings(recordings, ScriptedTranscriber(script), on_progress=lambda count, note="": None)
    teacher = make_tiny_whisper()
    collator = K2DDataCollator(processor, language="zh")
    return {
        "Label": (lambda **given: label_recordings(recordings, ScriptedTranscriber(script), **given), "1/1"),
        "Validate": (lambda **given: validate_labels(chunks, ScriptedTranscriber({4.0: "今天"}), **given), "1/1"),
        "Evaluate": (
            lambda **given: evaluate_model(ScriptedTranscriber(script), recordings, speed_runs=3, **given),
            "3/3",
        ),
        "Soft targets": (lambda **given: add_soft_targets(chunks, teacher, collator, **given), "1/1"),
    }


@pytest.mark.parametrize("title", ["Label", "Validate", "Evaluate", "Soft targets"])
def test_a_function_shows_a_bar_unless_it_is_switched_off(calls, title, bars, capsys):
    work, counted = calls[title]
    work()
    shown = capsys.readouterr().err
    assert f"{title}: 100%" in shown
    assert f"{counted} " in shown
    datasets.disable_progress_bars()
    work()
    assert capsys.readouterr().err == ""
    datasets.enable_progress_bars()
    done = []
    work(on_progress=lambda count, note="": done.append(count))  # as the command line does, which has its own
    assert capsys.readouterr().err == ""
    assert sum(done) == int(counted[0])
