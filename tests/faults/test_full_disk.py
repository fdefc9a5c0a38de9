"""A disk that fills while a stage runs: one line that says so, and nothing of what was finished is lost."""

import os
import re

import pytest
from pyarrow import ipc, parquet

from faults.small_disk import small_disk
from faults.stages import finished_shards, result_in

pytestmark = pytest.mark.slow

THOROUGH = int(os.environ.get("K2D_FAULT_TRIALS", "1")) > 1
KILOBYTE, MEGABYTE = 1024, 1024**2
FEW = [  # room, which is enough for some of what is written
    ("label transformers", 8 * KILOBYTE),
    ("targets", 32 * KILOBYTE),
]
MORE = [
    *[("label faster-whisper", room * KILOBYTE) for room in (0, 12, 16, 24, 28, 36)],
    *[("validate transformers", room * KILOBYTE) for room in (0, 8, 12, 20, 32)],
    *[("targets", room * KILOBYTE) for room in (0, 12, 64)],
    *[("distil", room * MEGABYTE) for room in (1, 20, 50, 60)],
]


@pytest.mark.parametrize(("name", "room"), FEW + (MORE if THOROUGH else []))
def test_a_full_disk_stops_a_stage_with_a_line_and_loses_nothing(stages, tmp_path, figure, name, room):
    command, (_, expected) = stages.command(name), stages.undisturbed(name)
    here = tmp_path / "here"
    with small_disk(here, max(room, 1), largest_file=room // 40) as disk:
        ended = stages.k2d.run(here, *command, largest_file=disk.largest_file)
        if ended.status == 0:  # it was enough after all
            assert result_in(here) == expected
            return
        *before, line = ended.lines
        assert ended.status == 1, ended.said
        assert all(re.match("k2d: (skipped|passed over) ", other) for other in before), ended.said
        assert re.match(r"k2d: \S*(out\S*|scratch): no room on its disk \(.*\d (bytes|.B) free", line), line
        assert re.search(r"\d (bytes|kB|MB) missing", line) or not disk.mounted, line
        assert result_in(here) is None
        shards = finished_shards(here)
        for path in shards:
            assert rows_of(here / path) > 0
        disk.grow()
        again = stages.k2d.run(here, *command)
        assert again.status == 0, again.said
        assert not set(again.finished()) & {path.name for path in shards}
        assert result_in(here) == expected
    figure(f"{name.split()[0]}: full disks", 1)


def rows_of(path):
    """Rows of a finished shard."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).num_rows
    with path.open("rb") as file:
        return ipc.open_stream(file).read_all().num_rows
