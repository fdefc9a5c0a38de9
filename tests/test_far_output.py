"""Stages that read streams and write to addresses give what they give on a disk."""

import json

import pytest
from datasets import load_dataset, load_from_disk
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import label_recordings, load_recordings, validate_labels
from k2d_hf.cli import main
from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.files.storage import files_below, open_to_read
from k2d_hf.labelling.teacher import LabellingReport

LABEL = ["--language", "zh", "--engine", "transformers", "--beam-size", "1", "--condition-on-previous-text", "false"]


@pytest.fixture
def address(tmp_path):
    """An address that nobody else uses."""
    return f"memory://far-output/{tmp_path.name}"


def test_the_commands_write_parquet_to_an_address_and_read_it_as_a_stream(workplace, tmp_path, address, capsys):
    recordings, teacher, auxiliary = (str(workplace / name) for name in ("recordings", "teacher", "auxiliary"))
    for chunks, validated, streaming in [
        (tmp_path / "chunks", tmp_path / "validated", []),
        (f"{address}/chunks", f"{address}/validated", ["--streaming"]),
    ]:
        label = ["label", recordings, "--teacher", teacher, "--output", str(chunks), *LABEL, *streaming]
        assert main(label) == 0
        validate = ["validate", str(chunks), "--auxiliary", auxiliary, "--output", str(validated)]
        assert main([*validate, "--engine", "transformers", *streaming]) == 0
    assert main(label) == 1
    assert f"k2d: {address}/chunks: already there and not empty" in capsys.readouterr().err
    here = load_from_disk(str(tmp_path / "validated"))
    for far in (load_chunks(f"{address}/validated"), load_chunks(f"{address}/validated", streaming=True)):
        assert list(far) == list(here)
    with open_to_read(f"{address}/chunks.skipped.jsonl") as file:
        far_skipped = [json.loads(line) for line in file]
    near_skipped = [json.loads(line) for line in (tmp_path / "chunks.skipped.jsonl").read_text().splitlines()]
    assert far_skipped == near_skipped
    assert files_below(f"{address}/chunks.resume") == []


def test_a_stream_of_recordings_and_of_chunks_gives_the_same_rows(workplace, tmp_path):
    reports, rows = [], []
    for streaming in (False, True):
        reports.append(LabellingReport())
        recordings = load_recordings(workplace / "recordings", streaming=streaming)
        rows.append(label_recordings(recordings, Anything({}), report=reports[-1]))
    assert rows[0][:] == rows[1][:]
    assert reports[0] == reports[1]
    rows[0].to_parquet(tmp_path / "chunks.parquet")
    stream = load_dataset("parquet", data_files=str(tmp_path / "chunks.parquet"), split="train", streaming=True)
    assert validate_labels(stream, Anything({}), shard_size=2)[:] == validate_labels(rows[0], Anything({}))[:]


class Anything(ScriptedTranscriber):
    """Hears the same in whatever there is."""

    def _take(self, audio, languages):
        self.script = {round(len(samples) / 16000, 4): self.said for samples in audio}
        return super()._take(audio, languages)

    def transcribe(self, audio, languages=None):
        self.said = [(0.0, 2.0, "很重要")]
        return super().transcribe(audio, languages)

    def transcribe_chunks(self, audio, languages=None):
        self.said = "很重要"
        return super().transcribe_chunks(audio, languages)
