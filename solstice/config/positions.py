"""YAML text to plain values, with the line of every key.  Called by imagemap and jobfile.

Job files come from users, so this reader takes less than YAML has: one document, text keys, plain scalars, no merge
keys, no tags that make objects.  Aliases are allowed, but every use of one counts as if it were written out, so an
alias bomb (a few lines that stand for 10**9 nodes) is refused before it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from solstice.errors import ConfigError, UsageError
from solstice.protocol.places import Place, dotted

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32

# YAML 1.1 reads 1:1:1:… as a number in base 60; a long one takes hours to compute.
_MAX_NUMBER = 64

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null"))


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: `value` is made of dict, list, str, int, float, bool and None."""

    path: Path
    value: Any
    lines: Mapping[Place, int]

    def where(self, place: Place) -> str:
        """`FILE:LINE` of a place; of the nearest one around it where the place itself is not in the file."""
        while place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines[place]}"

    def error(self, place: Place, why: str, remedy: str = "") -> ConfigError:
        return ConfigError(self.where(place), dotted(place), why, remedy)


def read(path: Path) -> Document:
    """Read a YAML file of at most `MAX_BYTES`.

    Raises `UsageError` if it cannot be read, `ConfigError` if it is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or "", "give the path of a readable YAML file") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(str(path), "", f"longer than {MAX_BYTES} bytes", "this is hardly the file that was meant")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}", "", "not UTF-8", "save the file as UTF-8") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Document:
    """Read YAML text; `path` is only for the messages.  Raises `ConfigError`."""
    try:
        _refuse_flood(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = f"not YAML: {error.problem or error.context}"
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}", "", why, _syntax_remedy(why)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        why = f"the character U+{error.character:04X} may not stand in YAML"
        raise ConfigError(f"{path}:{line}", "", why, "remove it") from None
    if root is None:
        raise ConfigError(f"{path}:1", "", "empty", "write the keys that the manual page lists")
    reader = _Reader(path)
    return Document(path, reader.value(root, ()), reader.lines)


def _refuse_flood(text: str, path: Path) -> None:
    """Stop early where composing takes long: a comma costs 1 KiB, an open bracket a scan of all the others."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{line}", "", "nested too deeply", f"nest at most {MAX_DEPTH} levels")
        if count > 2 * MAX_NODES + 4:  # a node has at most two events, the document four
            raise ConfigError(f"{path}:{line}", "", f"more than {MAX_NODES} values", "use fewer")


def _syntax_remedy(why: str) -> str:
    if "another document" in why:
        return "keep one document a file: remove the `---` between them"
    return "check indentation, colons and quotes on this line and the one before"


@dataclass(slots=True)
class _Reader:
    """Walks the node graph; what is shared in it (aliases) is visited, and counted, once for each use."""

    path: Path
    lines: dict[Place, int] = field(default_factory=dict)
    nodes: int = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error(node, place, f"more than {MAX_NODES} values, aliases written out", "use fewer aliases")
        if len(place) > MAX_DEPTH:
            raise self.error(node, place[:1], "nested too deeply", f"nest at most {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        raise self.error(node, place, f"the tag {node.tag} is not known here", "remove the tag")

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node, place)
            if key in result:
                first = self.lines[(*place, key)]
                raise self.error(key_node, (*place, key), f"is there twice, first on line {first}", "remove one")
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*place, key))
        return result

    def key(self, node: yaml.Node, place: Place) -> str:
        if node.tag == _TAG + "merge":
            raise self.error(node, place, "merge keys (<<) are not supported", "write the keys out, or alias the whole")
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "str":
            raise self.error(node, place, "a key that is not text", "put the key in quotes")
        return str(node.value)

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        if node.tag == _TAG + "timestamp":
            return node.value  # a date is text to us; YAML 1.1 would make an object of it
        if node.tag not in _SCALARS:
            raise self.error(node, place, f"the tag {node.tag} is not known here", "remove the tag")
        if node.tag == _TAG + "str":
            return node.value
        unreadable = f"cannot be read as {node.tag.removeprefix(_TAG)}"
        if len(node.value) > _MAX_NUMBER:
            raise self.error(node, place, unreadable, "put the value in quotes")
        try:
            return SafeConstructor().construct_object(node)
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            raise self.error(node, place, unreadable, "put the value in quotes") from None

    def error(self, node: yaml.Node, place: Place, why: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self.path}:{node.start_mark.line + 1}", dotted(place), why, remedy)
