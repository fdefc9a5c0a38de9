"""An adapter on its way to the Hub: its files, or the whole model that it makes of its base, with a card for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import read_json
from k2d_hf.models.adapters import ADAPTER_FILES, read_adapter
from k2d_hf.models.checkpoint import ADAPTER, ADAPTER_BASE
from k2d_hf.models.student_folder import GENERATION, PROCESSOR
from k2d_hf.publishing.card_names import names_of
from k2d_hf.publishing.card_use import SECTION, Place
from k2d_hf.publishing.student_files import CARD
from k2d_hf.transcription.decoding import carried_decoding

_OF_TRAINER = "This folder holds adapters of PEFT, not the student itself"
_OF_ADAPTER = "This repository holds an adapter of PEFT, not a whole model"
_USE = """
{begin}; `{base_file}` names the weights that it belongs to: {base}.

```python
from k2d_hf.models import load_whisper

model = load_whisper({source})  # base and adapter as one model
```

Its id serves wherever `k2d` takes a model. `k2d push FOLDER --merge` publishes the whole model for `pipeline`.
"""
_MERGED = "\nThe weights in this repository are whole: the adapter is merged with its base.\n"


def adapter_files(folder: Path) -> dict[str, Path]:
    """The files of an adapter in `folder`, by name.

    Raises:
        K2DError: if one is missing or invalid, or the base is a folder of this machine, which nobody else has.
    """
    read_adapter(folder)
    config = read_json(folder / ADAPTER)
    for source in [*_bases(folder), config.get("base_model_name_or_path")]:
        if source is not None and not str(source).startswith("wheels:") and names_of(source)[1] is None:
            raise K2DError(
                f"{folder / ADAPTER_BASE}: {source}: the base is a folder of this machine, not on the Hub; push the "
                "whole model (--merge, hub.merge), or name a base on the Hub"
            )
    names = (*ADAPTER_FILES, GENERATION, *PROCESSOR, CARD)
    return {name: folder / name for name in names if (folder / name).is_file()}


def adapter_card(text: str, place: Place, folder: Path) -> str:
    """The card of an adapter with how to load it from `place`; a section `Use` of the user's own stays."""
    bases = [names_of(source)[1] for source in _bases(folder)]
    named = next(filter(None, bases), None)
    source = json.dumps("@".join(filter(None, (place.repo_id, place.revision))))
    use = _USE.format(begin=_OF_ADAPTER, base_file=ADAPTER_BASE, base=named or "installed wheels", source=source)
    if not text:
        metadata = [*([f"base_model: {named}"] if named else []), "library_name: peft", "tags:", "- k2d", "- whisper"]
        text = "\n".join(["---", *metadata, "---", "", f"# {str(place.repo_id).split('/')[1]}", ""])
    return _with_use(text, use)


def merged_card(text: str, place: Place, config: Mapping[str, Any], folder: Path) -> str:
    """The card of an adapter in `folder`, or a new one, with how to load the whole model, of this generation config."""
    from huggingface_hub import ModelCard

    from k2d_hf.publishing.card_rendering import render_card
    from k2d_hf.publishing.model_card_data import K2DModelCardData

    base = next(filter(None, (names_of(source)[1] for source in _bases(folder))), None)
    name = str(place.repo_id).split("/")[1]
    decoding = carried_decoding(config)
    whole = render_card(
        K2DModelCardData(
            model_name=name, model_id=place.repo_id, revision=place.revision, decoding=decoding, base_model=base
        )
    )
    found = SECTION.search(whole.content)
    if not text or found is None:
        return whole.content
    card = ModelCard(text, ignore_metadata_errors=True)
    card.data["library_name"], card.data["pipeline_tag"] = "transformers", "automatic-speech-recognition"
    return _with_use(card.content, _MERGED + found[0])


def _with_use(text: str, use: str) -> str:
    """A card with this section `Use`, unless it has one that is not ours."""
    section = SECTION.search(text)
    if section is None:
        return f"{text.rstrip()}\n\n## Use\n{use}"
    if not any(ours in section[0] for ours in (_OF_TRAINER, _OF_ADAPTER)):
        return text
    return f"{text[: section.start()]}{use}{text[section.end() :]}"


def _bases(folder: Path) -> list[str]:
    """The sources of the base as `base.json` has them."""
    sources = json.loads((folder / ADAPTER_BASE).read_text(encoding="utf-8"))["sources"]
    return [sources] if isinstance(sources, str) else list(sources)
