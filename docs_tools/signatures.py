"""Signatures that the source does not show, for the Python reference: keywords that are the fields of settings.

`docs_tools.tables` notes them where the package can be imported; this extension of Griffe, which reads the source
alone, puts them into the reference.
"""

import json
from pathlib import Path
from typing import Any

from griffe import Docstring, Extension, Module, Parameter, ParameterKind, Parameters

NOTED = Path(__file__).with_suffix(".json")


class Signatures(Extension):
    """Gives functions and classes the parameters and the text that they have when imported."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Once the package is read."""
        for name, noted in json.loads(NOTED.read_text(encoding="utf-8")).items() if pkg.name == "k2d_hf" else ():
            shown: Any = pkg[name.removeprefix("k2d_hf.")]
            function = shown.members["__init__"] if shown.is_class else shown
            first = [function.parameters["self"]] if shown.is_class else []
            parts = [Parameter(**{**part, "kind": ParameterKind[part["kind"]]}) for part in noted["parameters"]]
            function.parameters = Parameters(*first, *parts)
            shown.docstring = Docstring(noted["text"], parent=shown, parser=shown.docstring.parser)
