"""Names that a card may show: an id on the Hub, the last part of a folder, escaped text; never a path.

Names come from users, folders and other people's files, so they are never Markdown, HTML or YAML.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

from k2d_hf.models import Checkpoint

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"({_PART}/{_PART})(@\S+)?")
_SNAPSHOT = re.compile(rf"models--({_PART}?)--({_PART})/snapshots/")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_RENAMED = {"jw": "jv"}  # Whisper's code for Javanese was withdrawn from ISO 639-1
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LINK = re.compile(r"https://[\w./~-]+", re.ASCII)
# As their cards on the Hub have it; the code and the weights that OpenAI itself publishes are under the MIT licence.
_OPENAI_SIZES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large", "large-v2", "large-v3",
)  # fmt: skip
_OPENAI_CHECKPOINTS = {f"openai/whisper-{size}": "apache-2.0" for size in _OPENAI_SIZES}
_OPENAI_CHECKPOINTS["openai/whisper-large-v3-turbo"] = "mit"
_MARKS = re.compile(r"[\\`*\[\]<|~$]|(?<!\w)_|_(?!\w)")


def has_id(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's name is an id on the Hub, and not a folder of the user's."""
    return checkpoint.origin in ("hub", "hub cache") or (checkpoint.origin == "wheels" and "/" in checkpoint.name)


def public_name(checkpoint: Checkpoint) -> str:
    """Its id, or the last part of its folder: a card has no paths."""
    return checkpoint.name if has_id(checkpoint) else Path(checkpoint.name).name


def teacher_name(teacher: Checkpoint, original: Checkpoint) -> str:
    """What a card calls the teacher: if it was adapted, by what it was adapted from, as it has no name of its own."""
    return public_name(teacher) if teacher.path == original.path else f"{public_name(original)}, adapted to this speech"


def hub_id(name: Any) -> str | None:
    """`user/name`, without revision, where that is what `name` is, and not a folder of the user's; else None."""
    match = _HUB_ID.fullmatch(name) if isinstance(name, str) else None
    return match[1] if match and not Path(match[1]).exists() else None


def names_of(model: Any) -> tuple[str | None, str | None]:
    """The name of a model (loaded, or as `resolve_checkpoint` takes it), and its id on the Hub; None where unknown."""
    source = model if isinstance(model, (str, Path)) else getattr(getattr(model, "config", None), "name_or_path", "")
    known = str(source)
    if known.startswith("wheels:"):
        known = parse_qs(known.partition("#")[2]).get("name", [""])[0]
    elif match := _SNAPSHOT.search(known):
        known = f"{match[1]}/{match[2]}"
    found = hub_id(known)
    return found or Path(known).name or None, found


def one_line(text: Any, *, most: int = 100) -> str:
    """Text without control characters and line breaks, cut to a length that a name may have."""
    visible = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in str(text))
    return " ".join(visible.split())[:most]


def escaped(text: Any) -> str:
    """One line of Markdown that shows `text` as it is: no links, tags, code or cells of a table begin in it."""
    shown = _MARKS.sub(lambda mark: "&lt;" if mark[0] == "<" else f"\\{mark[0]}", one_line(text, most=1000))
    return shown.replace("://", r":\//").replace("www.", r"www\.")  # else bare addresses become links


def hub_languages(codes: str | Iterable[str | None] | None) -> list[str]:
    """Language codes as the Hub takes them, sorted, each once; what is no code is left out."""
    given = [codes] if isinstance(codes, str) else codes or ()
    lowered = {_RENAMED.get(code.lower(), code.lower()) for code in given if code}
    return sorted(code for code in lowered if _LANGUAGE.fullmatch(code))


def read_licence(folder: str | Path) -> dict[str, str]:
    """`license`, and of one that the Hub has no name for `license_name` and `license_link`, from the card in a folder.

    Empty where there is no card, or it names none.
    """
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(Path(folder) / "README.md")
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return licence_fields(metadata or {})


def teacher_licence(folder: str | Path, model_id: str | None) -> dict[str, str]:
    """The licence in the card of a teacher's folder; without one that of OpenAI's checkpoints, by their id."""
    found = read_licence(folder)
    if not found and model_id in _OPENAI_CHECKPOINTS:
        found = {"license": _OPENAI_CHECKPOINTS[model_id]}
    return found


def licence_fields(given: dict[Any, Any]) -> dict[str, str]:
    """The fields of a licence among some metadata, as far as the Hub would take them."""
    forms = {"license": _LICENCE, "license_name": _LICENCE, "license_link": _LINK}
    found = {name: given[name] for name, form in forms.items() if form.fullmatch(str(given.get(name)))}
    return found if "license" in found else {}
