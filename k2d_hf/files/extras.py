"""The optional packages of an installation, and the commands that install them."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata

DISTRIBUTION = "k2d_hf"
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")


def packages_of(extra: str) -> list[str]:
    """The requirements of an extra, such as `faster-whisper>=1.2`; none where the package is not installed."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # it runs from its source alone
        return []
    split = [line.partition(";") for line in required]
    return [name.strip() for name, _, marker in split if extra in _EXTRA.findall(marker)]


def install_hint(extra: str) -> str:
    """The command that installs the packages of an extra, by their names: `k2d_hf` itself is on no package index."""
    packages = " ".join(f"'{package}'" for package in packages_of(extra))
    return f"pip install {packages}" if packages else f"pip install '.[{extra}]' in the checkout of {DISTRIBUTION}"


def missing(module: str | None, extra: str | None = None) -> str | None:
    """The command that installs `module`, by itself or with the extra that has it; None where nothing is missing."""
    if module is None or importlib.util.find_spec(module):
        return None
    return install_hint(extra) if extra else f"pip install {module}"
