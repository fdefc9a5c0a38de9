"""The files of a student in its folder: only these go to the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from k2d_hf.errors import K2DError
from k2d_hf.models.adapters import ADAPTER_FILES
from k2d_hf.models.checkpoint import WEIGHTS_INDEX, checkpoint_gap, weight_files
from k2d_hf.models.processors import NESTED
from k2d_hf.models.student_folder import PROCESSOR, SETTINGS, complete_student, is_complete
from k2d_hf.publishing.eval_results import FOLDER, OURS, result_files

CTRANSLATE2, GGML = "ctranslate2/", "ggml/"  # the folders of the repository that hold these formats
CARD = "README.md"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def student_files(folder: Path) -> dict[str, Path]:
    """The files of a complete student in `folder`, by name.

    Raises:
        K2DError: if the folder is not a complete Whisper checkpoint in safetensors that pipeline can load.
    """
    if not folder.is_dir():
        raise K2DError(f"{folder}: no such folder; give the folder of a student, as k2d distil or k2d run writes it")
    gap = checkpoint_gap(folder)
    if gap is None and not (folder / "generation_config.json").is_file():
        gap = "no generation_config.json"
    if gap is not None:
        raise K2DError(f"{folder}: not a complete checkpoint, {gap}; give what k2d distil or k2d run wrote")
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "whisper":
        raise K2DError(f"{folder}: a {kind} model, not Whisper; give the folder of a student")
    weights = [file.name for file in weight_files(folder)]
    if others := [name for name in weights if not _WEIGHTS.fullmatch(name)]:
        raise K2DError(f"{folder}: weights called {others[0]}; save the model again with save_pretrained")
    if len(weights) > 1 or weights[0] != "model.safetensors":
        if (folder / "model.safetensors").is_file() and "model.safetensors" not in weights:
            raise K2DError(f"{folder}: model.safetensors and {WEIGHTS_INDEX} are two models; remove the old one")
        weights.append(WEIGHTS_INDEX)
    names = [*SETTINGS, *weights, *PROCESSOR, NESTED, CARD]
    results = {f"{FOLDER}{path.name}": path for path in result_files(folder)}
    return {name: folder / name for name in names if (folder / name).is_file()} | results


def completed(folder: Path, files: dict[str, Path], scratch: Path) -> dict[str, Path]:
    """`files` of the student in `folder`, with those that an earlier version or a `save_pretrained` did not write.

    The folder stays as it is; settings and processor are written anew to `scratch` where something is missing.

    Raises:
        K2DError: if they cannot be read.
    """
    if is_complete(folder):
        return files
    complete_student(folder, scratch)
    others = {name: path for name, path in files.items() if name not in (*SETTINGS, *PROCESSOR, NESTED)}
    return {name: scratch / name for name in (*SETTINGS, *PROCESSOR)} | others


def is_stale(path: str, changed: Iterable[str]) -> bool:
    """Whether a file of the repository that this student does not have is an earlier student's, and is deleted.

    Old shards beside new weights would be loaded in their place, and an export to another format is of the weights that
    it was made from. With an adapter beside them, transformers would load another model in the place of whole weights.
    Results on benchmarks that this student does not have are another's. Other files stay.
    """
    if path.startswith(FOLDER + OURS):
        return True
    for folder in (CTRANSLATE2, GGML):
        if path.startswith(folder):
            weights = (_WEIGHTS.fullmatch(name) or name in ADAPTER_FILES or name.startswith(folder) for name in changed)
            return any(weights)
    return path in (*SETTINGS, *PROCESSOR, NESTED, *ADAPTER_FILES) or _WEIGHTS.fullmatch(path) is not None
