"""A card taken apart, and facts such as a run leaves, for the tests of cards."""

import re

import yaml

from k2d_hf.publishing.model_card_data import DataFacts, EvaluatedSet, K2DModelCardData, TrainingFacts

FIGURES = {
    "mer": 0.2,
    "zh_cer": 0.1,
    "en_wer": None,
    "substitutions": 1,
    "deletions": 2,
    "insertions": 3,
    "looping_outputs": 0,
    "rtf": 0.1,
    "measurement": {"id": "one", "machine": "x86_64, Linux"},
    "parameters": 64_200_000,
    "recordings": 1,
    "audio_seconds": 180.0,
    "engine": "transformers",
    "beam_size": 5,
}
TRAINED = {
    "loss": {"ce_weight": 0.8, "kl_weight": 1.0, "auxiliary_weight": 0.0, "temperature": 2.0},
    "arguments": {"learning_rate": 3e-4, "freeze_embeddings": True},
    "batch_size": 8,
    "processes": 2,
    "device": "cpu",
    "chunks": 31,
    "steps": 112,
    "epochs": 14.0,
    "seconds": 90.0,
    "soft_targets": True,
    "shares_encoder": True,
    "adapters": None,
    "evaluated": {},
    "versions": {"torch": "2.9"},
}
LOG = [{"step": 10 * i, "loss": 2.0 / i, "ce": 1.0, "kl": 0.6, "agreement": 0.5} for i in range(1, 21)]


def training(**changes):
    """Facts of a training that is over."""
    return TrainingFacts(**{**TRAINED, **changes})


def evaluated(**changes):
    """Teacher and student on a set."""
    return EvaluatedSet({"teacher": {**FIGURES, "rtf": 0.3}, "student": {**FIGURES, **changes}})


def facts(**changes):
    """Facts of a run with everything measured but the student's errors."""
    values = {
        "model_name": "lectures",
        "teacher": "openai/whisper-base",
        "base_model": "openai/whisper-base",
        "auxiliary": "openai/whisper-tiny",
        "data": DataFacts(40, 900.0, 32, 600.0, {"distance > 0.40": 8}, ["zh"], {"mer": 0.05, "distance": 0.04}),
        "metric": "composite",
        "threshold": 0.4,
        "training": training(),
        "training_log": LOG,
    }
    return K2DModelCardData(**{**values, **changes})


def metadata(text):
    """What stands between the two lines of dashes, read as YAML."""
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def body(text):
    """The Markdown without metadata and code."""
    return re.sub(r"```.*?```", "", re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL), flags=re.DOTALL)


def headings(text):
    """Lines that are headings, but for the title."""
    return re.findall(r"^##+ .*", body(text), re.MULTILINE)


def table_heads(text):
    """First lines of the tables."""
    return re.findall(r"^(\|.*)\n\| ---", body(text), re.MULTILINE)


def code(text):
    """The Python blocks."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def rows(text):
    """The table of how it was made."""
    table = body(text).partition("## How it was made")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (.*) \|$", table, re.MULTILINE))
