"""The card of a data set of validated chunks: its columns, its size, and what validation dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from k2d_hf.data import chunk_schema
from k2d_hf.publishing.card_names import escaped, hub_languages
from k2d_hf.publishing.card_use import Place
from k2d_hf.validation.judges import JUDGES

TAGS = ["k2d", "pseudo-labels", "code-switching", "whisper"]
COLUMNS = {
    **{column.name: column.description for column in chunk_schema.COLUMNS},
    **{judge.column: judge.description for judge in JUDGES},
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_data_card(
    repo_id: str,
    *,
    columns: Sequence[str],
    count: int,
    languages: Sequence[str],
    kept_only: bool,
    facts: Mapping[str, str],
    revision: str | None = None,
) -> str:
    """The card of the data set `repo_id` as text, without a licence, which is unknown.

    Args:
        repo_id: `user/name`.
        columns: each among `COLUMNS`.
        count: number of chunks.
        languages: codes.
        kept_only: whether chunks that validation dropped are left out.
        facts: lines of the table; those without a value are left out.
        revision: the branch; None is the main one.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        language=hub_languages(languages) or None,
        pretty_name=repo_id.split("/")[1],
        size_categories=next((size for most, size in _SIZES if count < most), "n>1M"),
        task_categories=["automatic-speech-recognition"],
        tags=TAGS,
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    table = {"chunks": str(count), "languages": ", ".join(languages), **facts}
    card = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("data_card_template.md")),
        repo_id=repo_id,
        source=Place(repo_id, revision).source,
        facts=[(key, escaped(value)) for key, value in table.items() if value],
        columns=[(column, COLUMNS[column]) for column in columns],
        kept_only=kept_only,
    )
    return str(card)
