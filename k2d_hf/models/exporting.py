"""Export of a checkpoint to the format of another engine; the formats are found in `exports/`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2d_hf.errors import K2DError
from k2d_hf.files.cache import cache_root
from k2d_hf.files.extras import missing
from k2d_hf.files.folders import cached_folder, write_folder
from k2d_hf.models.checkpoint import checkpoint_gap
from k2d_hf.models.fingerprints import checkpoint_fingerprint


@dataclass(frozen=True)
class ExportFormat:
    """What the module of a format declares in `FORMAT`; choices, help and checks follow from it."""

    name: str  # of `k2d export --to`
    title: str  # its name in a sentence
    reader: str  # the engine that reads it
    opened_with: str  # the call that opens the folder `DIR`
    fill: Callable[[Path, Path, str | None], None]  # from a complete checkpoint into an empty folder, with quantization
    quantizations: Sequence[str] = ()  # number formats of the weights
    unquantized: str | None = None  # which of them is taken where none is asked for; None keeps the checkpoint's own
    module: str | None = None  # what must be importable to write it
    extra: str | None = None  # of this package, which installs it

    def check_installed(self) -> None:
        """Raise K2DError where what writes it is not installed."""
        if hint := missing(self.module, self.extra):
            raise K2DError(f"the {self.title} format needs {self.module}: {hint}")

    def export(self, checkpoint_dir: str | Path, output_dir: str | Path, *, quantization: str | None = None) -> Path:
        """Write the folder `output_dir`, which must be empty or not exist.

        Raises:
            K2DError: if a package is not installed, the checkpoint is not complete, the quantization is unknown, or the
                output folder holds something.
        """
        return write_folder(Path(output_dir), lambda folder: self._fill(Path(checkpoint_dir), folder, quantization))

    def cached(self, checkpoint_dir: str | Path, *, quantization: str | None = None) -> Path:
        """The export of a local checkpoint, made on first use and cached by fingerprint; it raises as `export`."""
        name = f"{checkpoint_fingerprint(checkpoint_dir)}-{quantization or 'unquantized'}"
        target = cache_root() / self.name / name
        return cached_folder(target, lambda folder: self._fill(Path(checkpoint_dir), folder, quantization))

    def _fill(self, checkpoint: Path, folder: Path, quantization: str | None) -> None:
        self.check_installed()
        if quantization not in (None, *self.quantizations):
            raise K2DError(f"quantization {quantization!r}: not one of {', '.join(self.quantizations)}")
        # Converters load any weights, pickles too: so these are checked first.
        if gap := checkpoint_gap(checkpoint):
            raise K2DError(
                f"{checkpoint}: not a complete checkpoint, {gap}; give the folder of a transformers checkpoint"
            )
        self.fill(checkpoint, folder, quantization)


def export_formats() -> dict[str, ExportFormat]:
    """The formats by name."""
    modules = [name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent / "exports")])]
    formats = [importlib.import_module(f"{__package__}.exports.{name}").FORMAT for name in modules]
    return {one.name: one for one in formats}
