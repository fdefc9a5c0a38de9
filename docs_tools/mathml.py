"""Equations of the pages: a fence of LaTeX becomes MathML, which browsers draw without a script or a font."""

from typing import Any

from latex2mathml.converter import convert


def fence(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **kwargs: Any) -> str:
    """A fence `math` as MathML; called by pymdownx.superfences."""
    return f'<div class="math">{convert(source, display="block")}</div>'
