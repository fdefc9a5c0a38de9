"""Tables of the pages that are made from the code: settings, columns, reasons and messages.

`python -m docs_tools.tables` writes them into docs/: four of them between markers of pages that are kept, the list of
messages as a page of its own, which is not.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import k2d_hf
from k2d_hf.audio.reader import ADVICE
from k2d_hf.data import chunk_schema
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.files.settings import describe_setting, hints_of, metavar_of, section_of
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.validation.judges import JUDGES, MEASURED

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SIGNATURES = ROOT / "docs_tools" / "signatures.json"  # for docs_tools.signatures
BEGIN, END = "<!-- made by docs_tools.tables: {} -->", "<!-- end of {} -->"
RAISED = ("K2DError", "AudioError")
EVERYWHERE = "anywhere"  # messages of modules that are in no folder
SPEAKING = {  # names in the code that tell a reader what varies; all others are dots
    *("path", "folder", "file", "name", "source", "repo_id", "key", "setting", "value", "where", "column", "device"),
    *("dtype", "engine", "language", "metric", "threshold", "temperature", "revision", "output", "address"),
}


def settings_tables() -> str:
    """All settings of a recipe, a table a section, from the dataclasses that read them."""
    hints = hints_of(Recipe)
    sections = {name: section_of(hint) for name, hint in hints.items()} | {"distil": DistillationSettings}
    top = [field for field in dataclasses.fields(Recipe) if sections[field.name] is None]
    lines = ["### The recipe itself", "", *_table(top, hints)]
    for name, section in sections.items():
        if section is not None:
            lines += ["", f"### `{name}`", "", f"{_first_line(section)}", ""]
            lines += _table(dataclasses.fields(section), hints_of(section))
    return "\n".join(lines)


def _table(fields: Iterable[dataclasses.Field], hints: Mapping[str, Any]) -> list[str]:
    rows = ["| setting | value | default | what it does |", "| --- | --- | --- | --- |"]
    for field in fields:
        text = re.sub(r" \(default: [^()]*\)$", "", describe_setting(field, besides="|"))
        choices = field.metadata.get("choices") or metavar_of(field, hints[field.name]).split("|")
        value = ", ".join(f"`{choice}`" for choice in choices)
        cells = [f"`{field.name}`", value, _default(field), text[:1].upper() + text[1:]]
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "must be given"
    if field.default is dataclasses.MISSING:
        return "none"
    if isinstance(field.default, float):
        return f"`{field.default:g}`"
    return f"`{'null' if field.default is None else str(field.default).lower()}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("{...}", "`{...}`")


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def reasons_table() -> str:
    """The audio reader's reasons to skip a recording, with the way out of each."""
    rows = [f"| `{reason}` | {advice[:1].upper() + advice[1:]}. |" for reason, advice in ADVICE.items()]
    return "\n".join(["| reason | way out |", "| --- | --- |", *rows])


def judges_table() -> str:
    """The reasons of the judges beyond the distance to drop a chunk, with the way out of each."""
    rows = [
        f"| `{judge.reason(judge.example)}` | {judge.cause} | Raise `validate.{judge.setting}`, or leave it out. |"
        for judge in JUDGES
    ]
    return "\n".join(["| reason | what it means | way out |", "| --- | --- | --- |", *rows])


def columns_table() -> str:
    """The columns of a chunk, with type, writer and meaning."""
    columns = [(c.name, c.kind, c.writer or "publishing", c.description) for c in chunk_schema.COLUMNS]
    columns += [(judge.column, "float64", chunk_schema.VALIDATION, judge.description) for judge in MEASURED]
    rows = [f"| `{name}` | {kind} | {writer} | {text} |" for name, kind, writer, text in columns]
    return "\n".join(["| column | type | written by | what it is |", "| --- | --- | --- | --- |", *rows])


def messages() -> dict[str, list[str]]:
    """What the code raises for a user to mend, by the folder that it is in; what varies stands in capitals."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "k2d_hf").rglob("*.py")):
        room = path.relative_to(ROOT / "k2d_hf").parts[0] if path.parent.name != "k2d_hf" else EVERYWHERE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) in RAISED and node.args:
                text = re.sub("…+", "…", " ".join("".join(_text(node.args[0])).split()))
                if re.search(r"[a-z]{2} [a-z]{2}", text):  # else it hands on a message that is made elsewhere
                    found.setdefault(room, []).append(text)
    return {room: sorted(set(found[room]), key=str.lower) for room in sorted(found, key=lambda r: (r == EVERYWHERE, r))}


def _text(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from _text(part)
    elif isinstance(node, ast.FormattedValue):
        yield _placeholder(node.value)
    elif isinstance(node, ast.BinOp):
        yield from _text(node.left)
        yield from _text(node.right)
    elif isinstance(node, ast.Call) and node.args:
        yield from _text(node.args[0])


def _placeholder(node: ast.AST) -> str:
    """What stands for a part that varies."""
    if isinstance(node, ast.Call) and _name(node.func) == "install_hint":
        return f"pip install '.[{''.join(_text(node.args[0]))}]'"
    if isinstance(node, ast.Call) and node.args and _name(node.func) != "join":
        return _placeholder(node.args[0])
    return _name(node).upper() if _name(node) in SPEAKING else "…"


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def messages_page() -> str:
    """The page of all messages."""
    lines = [
        "# All messages",
        "",
        "Every mistake that you can mend is one line: what is wrong, where, and what to do.",
        "This list is made from the code.",
        "A word in capitals stands for what varies.",
        "The search finds a message by its words.",
    ]
    for room, texts in messages().items():
        lines += ["", f"## {room}", "", *(f"* {_code(text)}" for text in texts)]
    return "\n".join(lines) + "\n"


TABLES = {
    "settings": ("settings.md", settings_tables),
    "columns": ("data.md", columns_table),
    "reasons": ("errors.md", reasons_table),
    "judges": ("errors.md", judges_table),
}


def filled(page: str, name: str, table: str) -> str:
    """The text of a page with the table between its markers."""
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def signatures() -> dict[str, Any]:
    """Parameters and text of the public functions and classes whose keywords are settings (`files.keywords`)."""
    found = {}
    for name in k2d_hf.__all__:
        shown: Any = getattr(k2d_hf, name)
        if hasattr(shown.__init__ if isinstance(shown, type) else shown, "arguments"):
            parameters = [
                {
                    "name": one.name,
                    "annotation": one.annotation,
                    "kind": one.kind.name.lower(),
                    "default": None if one.default is one.empty else repr(one.default),
                }
                for one in inspect.signature(shown).parameters.values()
            ]
            found[f"{shown.__module__}.{name}"] = {"parameters": parameters, "text": inspect.getdoc(shown)}
    return found


def main() -> None:
    """Write all tables, and the signatures for `docs_tools.signatures`."""
    for name, (page, make) in TABLES.items():
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
    (DOCS / "messages.md").write_text(messages_page(), encoding="utf-8")
    SIGNATURES.write_text(json.dumps(signatures()), encoding="utf-8")


if __name__ == "__main__":
    main()
