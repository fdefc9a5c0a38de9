"""What lies in a folder of finished shards, and a change to it that shows whether a later run reads it."""

import json

import pyarrow
from pyarrow import parquet


def shard_rows(folder):
    """The rows of all shards of a stage, from the folder of that stage."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def stage_folder(resume, stage):
    """The one folder of shards of a stage, in a folder `resume`."""
    (folder,) = resume.glob(f"{stage}-*")
    return folder


def rewrite(folder, recording, old, new):
    """Replace a text, once, in what the shards of a stage keep of a recording."""
    for path in folder.glob("*.parquet"):
        table = parquet.read_table(path)
        rows = table.to_pylist()
        if any(recording in row["key"] and old in json.dumps(row, ensure_ascii=False) for row in rows):
            changed = json.loads(json.dumps(rows, ensure_ascii=False).replace(old, new, 1))
            parquet.write_table(pyarrow.Table.from_pylist(changed, table.schema), path)
            return
    raise AssertionError(f"{old} of {recording} is in no shard of {folder}")
