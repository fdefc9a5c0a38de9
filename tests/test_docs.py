"""The documents: links lead somewhere, commands and code in them are real, tables are those of the code."""

import ast
import contextlib
import importlib
import io
import re
import shlex
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import k2d_hf
from docs_tools import check, tables
from k2d_hf.cli import _parser
from k2d_hf.data import chunking
from k2d_hf.data.chunking import Segment, valid_segments
from k2d_hf.data.utterances import LONGER, NO_TEXT
from k2d_hf.labelling import hypotheses, teacher
from k2d_hf.pipeline.recipe import load_recipe
from k2d_hf.transcription import timeout, worker
from k2d_hf.validation.distance import compare_labels, drop_reason
from k2d_hf.validation.judges import JUDGES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
KEPT = [page for page in PAGES if page.name != "messages.md"]  # that one is made by `make docs`, and not kept
FOLDERS = ("benchmarks", "metrics", "model_cards", "recipes")
READ = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *KEPT]
READ += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("README.md"))]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(k2d [^`\n]+)`(?!`)")


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks(path, *languages):
    return [textwrap.dedent(body) for _, language, body in FENCE.findall(text_of(path)) if language in languages]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_every_page_is_in_the_menu_once():
    listed = re.findall(r'= "([\w-]+\.md)"', text_of(ROOT / "zensical.toml"))
    assert sorted(listed) == sorted([*(page.name for page in KEPT), "messages.md"])


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 180


@pytest.mark.parametrize("table", tables.TABLES)
def test_tables_are_those_of_the_code(table):
    page, make = tables.TABLES[table]
    text = text_of(tables.DOCS / page)
    made = make()
    assert len(made.splitlines()) > {"judges": 2}.get(table, 10)
    assert tables.filled(text, table, made) == text, f"docs/{page} is out of date; run python -m docs_tools.tables"


def headings(path):
    """Anchors of a page, as GitHub and the generator make them."""
    text = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}
    return slugs | set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_links_within_the_repository_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        place, _, anchor = link.partition("#")
        if "://" in link or (path.parent / place) == tables.DOCS / "messages.md":
            continue
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert path.parent != tables.DOCS or target.parent.is_relative_to(tables.DOCS), f"{link}: no page of the site"
        assert not anchor or anchor in headings(target), link


def commands(path):
    """The command lines in the fences of a document that call k2d, each as its words after `k2d`."""
    for body in blocks(path, "", "bash", "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            if found := re.match(r"\s*(?:.*-m k2d_hf|\$ k2d|(?:\.venv/bin/)?k2d) (.*)", line):
                yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_commands_are_read_by_the_real_parser(path):
    for words in commands(path):
        assert parsed(words) == "", words


def parsed(words):
    """What the parser has against a command line; nothing where it reads it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        _parser().parse_args(words)
    return said.getvalue()


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_commands_in_a_sentence_have_commands_and_options_that_there_are(path):
    known_commands = _parser().commands.choices
    for found in INLINE.findall(text_of(path)):
        command, *words = shlex.split(found)[1:]
        if command in ("VERB", "COMMAND", "--help", "--version"):
            continue
        assert command in known_commands, found
        options = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
        known = {option for action in known_commands[command]._actions for option in action.option_strings}
        assert options <= known, found


def test_the_documents_have_commands_of_every_command():
    shown = {words[0] for path in READ for words in commands(path)}
    others = {found.split()[1] for path in READ for found in INLINE.findall(text_of(path))}
    assert shown | others >= set(_parser().commands.choices)
    assert len([words for path in READ for words in commands(path)]) > 20


def test_a_wrong_command_would_be_found():
    assert "no-such-option" in parsed(["label", "x", "--teacher", "y", "--output", "z", "--no-such-option"])


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_code_compiles_and_imports_what_there_is(path):
    for code in blocks(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "k2d_hf":
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if alias.name not in dir(module)] == []


def test_the_metrics_give_what_the_page_says():
    (code,) = (code for code in blocks(ROOT / "docs" / "evaluation.md", "python") if "mixed_tokens" in code)
    assert k2d_hf.mixed_tokens("我們用 GPU 來 train") == ast.literal_eval(re.findall(r"# (\[.*\])", code)[0])
    assert k2d_hf.MixedErrorRate().compute(predictions=["我们用GPU"], references=["我們用 GPU"])["mer"] == 0.0


def test_the_table_of_mixed_error_rates_is_right():
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \| (\d+)/(\d+) \| (\d+) / (\d+) / (\d+) \|$",
        text_of(tables.DOCS / "validation.md"),
        re.MULTILINE,
    )
    assert len(rows) == 5
    for reference, hypothesis, *numbers in rows:
        counts = k2d_hf.count_errors(k2d_hf.mixed_tokens(reference), k2d_hf.mixed_tokens(hypothesis))
        errors = [counts.substitutions, counts.deletions, counts.insertions]
        assert [sum(errors), counts.reference_length, *errors] == list(map(int, numbers)), reference


def test_the_reference_has_every_public_name():
    shown = re.findall(r"^::: k2d_hf\.(\w+)$", text_of(tables.DOCS / "reference.md"), re.MULTILINE)
    assert sorted(shown) == sorted(set(k2d_hf.__all__) - {"__version__"})


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_recipes_in_documents_load(path, tmp_path):
    for number, body in enumerate(blocks(path, "yaml")):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(body, encoding="utf-8")
        assert load_recipe(recipe, elsewhere=True).name


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_each_section_of_a_recipe_says_what_it_is_for(path):
    lines = text_of(path).splitlines()
    sections = yaml.safe_load(text_of(path))
    for name in sections:
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
        above = [line for line in lines[at - 1 : at] if line.startswith("# ")]
        assert above, f"{path}: {name} has no comment above it"
    paper = [line for line in lines if line.startswith("# ") and "aper" in line]
    assert len(paper) > len(sections) / 2


def test_every_message_is_listed():
    listed = {text for room in tables.messages().values() for text in room}
    assert len(listed) > 250
    assert "push: nothing to push; give the folder of a student, or --data CHUNKS" in listed
    assert any(text.startswith("… has … tokens, student …: their vocabularies cannot be mixed") for text in listed)
    page = tables.messages_page()
    assert all(text in page for text in listed)
    assert not [text for text in listed if "{" in text.replace("{...}", "") or "\n" in text]


def test_every_reason_is_on_the_page():
    page = text_of(tables.DOCS / "errors.md")
    odd = [(-1, 0, "a"), (0, 40, "a"), (50, 50, "a"), (60, 61, " "), (70, float("inf"), "a"), (99, 101, "a")]
    _, left_out = valid_segments([Segment(*values) for values in odd], recording_duration=100.0)
    reasons = {span.reason for span in left_out}
    assert len(reasons) == len(odd)
    reasons |= {timeout.NOT_TRANSCRIBED, timeout.TIMED_OUT, teacher.LISTED_TWICE, hypotheses.UNKNOWN_LANGUAGE}
    reasons |= {chunking.PASSED_OVER, chunking.PASSED_OVER_INSIDE, worker.NO_SPEECH}
    reasons |= {drop_reason(compare_labels(text, "b"), "composite", 0.4) for text in ("a", "ab" * 20)}
    reasons |= {judge.reason(judge.example) for judge in JUDGES} | {LONGER, NO_TEXT}
    assert [reason for reason in reasons if f"| `{reason}` |" not in page] == []


def test_the_picture_fetches_nothing_and_names_itself():
    picture = ElementTree.parse(ROOT / "docs" / "method.svg").getroot()
    tags = {element.tag.rpartition("}")[2] for element in picture.iter()}
    assert {"title", "desc"} <= tags
    assert not {"image", "script", "use", "foreignObject"} & tags
    assert "prefers-color-scheme: dark" in text_of(ROOT / "docs" / "method.svg")


def test_the_check_of_pages_finds_what_is_wrong(tmp_path):
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>', encoding="utf-8")
    good = '<a href="b.html#here">b</a><a href="https://example.org/">e</a><img src="data.svg">'
    (tmp_path / "data.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "a.html").write_text(good, encoding="utf-8")
    assert check.faults(tmp_path) == ([], ["https://example.org/"])
    bad = '<a href="c.html">c</a><a href="b.html#there">b</a><script src="https://example.org/x.js"></script>'
    (tmp_path / "a.html").write_text(bad, encoding="utf-8")
    (tmp_path / "a.css").write_text("@import 'https://example.org/a.css';", encoding="utf-8")
    wrong, _ = check.faults(tmp_path)
    assert [line.partition(": ")[2] for line in wrong] == [
        "c.html leads to no file",
        "b.html#there leads to no heading",
        "fetches https://example.org/x.js; keep it in docs/assets",
        "a style fetches from elsewhere",
    ]
    assert check.faults(tmp_path / "empty")[0]
