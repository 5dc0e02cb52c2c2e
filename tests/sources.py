"""The modules of a tree and what they import, as the syntax tree tells it.  Used by the tests of layers and sizes.

Nothing is imported or executed.  `import a.b` and `from a.b import c` both give the module that is meant: `a.b.c` where
the tree has such a module, else `a.b`.  Imports inside functions and under `if TYPE_CHECKING` count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Import:
    """One import; `top` is true where it runs as soon as its module is imported."""

    target: str
    line: int
    top: bool


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]


Modules = dict[str, Module]


def read(root: Path, package: str = "solstice") -> Modules:
    """Every module of `package` below `root`, by its dotted name."""
    paths = {_name(path.relative_to(root)): path for path in sorted((root / package).rglob("*.py"))}
    trees = {name: ast.parse(path.read_bytes(), path) for name, path in paths.items()}
    return {name: Module(name, paths[name], tree, tuple(_imports(name, tree, paths))) for name, tree in trees.items()}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, tree: ast.Module, known: dict[str, Path]) -> Iterator[Import]:
    later = {id(inner) for outer in ast.walk(tree) if isinstance(outer, _FUNCTIONS) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        top = id(node) not in later
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, known[name], node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in known else base, node.lineno, top)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _base(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The module after `from`, absolute."""
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    parts = parts[: len(parts) - node.level + (path.name == "__init__.py")]
    return ".".join([*parts, *([node.module] if node.module else [])])


def loaded_with(modules: Modules, name: str) -> set[str]:
    """Everything that is imported as soon as `name` is: modules of the tree, their packages, and other libraries."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in modules:
            waiting += [item.target for item in modules[current].imports if item.top]
        if "." in current:
            waiting.append(current.rpartition(".")[0])
    return seen
