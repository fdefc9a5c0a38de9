"""YAML as a recipe may have it: plain values, every key once, and of limited size.

YAML's safe loader runs no code, yet ten lines of aliases make it fill the memory, and some values make it crash.
"""

from __future__ import annotations

from typing import Any

import yaml

from k2d_hf.formatting import error_message, is_text, short_name

MOST_CHARACTERS = 1 << 17
MOST_VALUES = 5000  # with aliases expanded
MOST_LEVELS = 50
_MOST_DIGITS = 100
_MOST_BITS = 64


def load_yaml(text: str) -> Any:
    """The values of a YAML document.

    Raises yaml.YAMLError if it is not YAML, sets a key twice, holds what no recipe has, or is far too large.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters, where at most {MOST_CHARACTERS} are read")
    return yaml.load(text, _Loader)  # noqa: S506, a SafeLoader


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        self._values: dict[yaml.Node, int] = {}  # in each node that is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._level > MOST_LEVELS:
            raise _refused(f"more than {MOST_LEVELS} levels", self.peek_event())
        alias = self.peek_event() if self.check_event(yaml.AliasEvent) else None
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if alias is None and node is not None:
            self._values[node] = self._checked(node)
        elif alias is not None and node not in self._values:
            raise _refused("an alias of what it stands in", alias)
        return node

    def _checked(self, node: yaml.Node) -> int:
        """Its number of values with aliases expanded."""
        if isinstance(node, yaml.ScalarNode):
            if not is_text(node.value):
                raise _refused("a character that is no text", node)
            return 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        inner = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        values = 1 + sum(self._values[part] for part in inner)
        if values > MOST_VALUES:
            raise _refused(f"{values} values with aliases expanded, where at most {MOST_VALUES} are read", node)
        return values

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > _MOST_DIGITS:
            raise _refused(f"a number of {len(node.value)} digits", node)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise _refused(f"not of type {short_name(kind)} ({error_message(error)})", node) from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _refused(f"a number of more than {_MOST_BITS} bits", node)
        return value


def _check_keys(node: yaml.MappingNode) -> None:
    """The safe loader would take the last of two, and lose the first without a warning."""
    seen = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        if key.value in seen:
            raise _refused(f"{short_name(key.value)} is set twice", key)
        seen.add(key.value)


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
