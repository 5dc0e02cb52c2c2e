"""Imports point one way.  The layers stand here once, as a table; planted faults test the checks themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOT, Modules, loaded_with, read

# A part may import itself and any part with a lower number, and no other.  errors, lifecycle and model are one layer
# in the design; the order among them is theirs.
LAYERS = {
    "errors": 0.0,
    "lifecycle": 0.1,
    "model": 0.2,
    "protocol": 1,
    "config": 2,
    "logs": 2,
    "host": 3,
    "images": 4,
    "seed": 4,
    "hypervisors": 4,
    "runner": 4,
    "store": 4,
    "broker": 4,
    "forge": 4,
    "worker": 5,
    "supervisor": 6,
    "web": 6,
    "cli": 7,
    "__main__": 8,
}
# Lower layers that a part may not import all the same.
KEPT_APART = {"worker": {"store", "broker"}, "web": {"worker", "supervisor"}}
# What only one module may import, and nobody at all.
ONE_DOOR = {"subprocess": "solstice.host.processes"}
BANNED = {"pickle", "multiprocessing"}
# What the supervisor's process never loads.
HEAVY = {"libvirt", "sqlalchemy", "sqlite3"}


def upward(modules: Modules) -> Iterator[str]:
    """Every import of ours that is not downward, as FILE:LINE and what is wrong.  The package root is below all."""
    for module in modules.values():
        part = _part(module.name)
        for item in module.imports:
            if item.target.split(".")[0] != "solstice":
                continue
            target = _part(item.target)
            if not part:
                yield f"{module.path}:{item.line}: the package root imports {item.target}"
            elif target not in ("", part) and (LAYERS[target] >= LAYERS[part] or target in KEPT_APART.get(part, ())):
                yield f"{module.path}:{item.line}: {part} may not import {item.target}"


def forbidden(modules: Modules) -> Iterator[str]:
    """Every import of a library where it may not be."""
    for module in modules.values():
        for item in module.imports:
            library = item.target.split(".")[0]
            if library in BANNED or ONE_DOOR.get(library, module.name) != module.name:
                yield f"{module.path}:{item.line}: {module.name} may not import {library}"


def _part(name: str) -> str:
    """`solstice.host.files` is in the part `host`; the package root is in none."""
    return name.partition(".")[2].partition(".")[0]


@pytest.fixture(scope="module")
def ours() -> Modules:
    return read(ROOT)


def test_every_part_has_a_layer(ours: Modules) -> None:
    assert {_part(name) for name in ours} - {""} <= LAYERS.keys()


def test_imports_point_downward(ours: Modules) -> None:
    assert list(upward(ours)) == []


def test_the_package_root_imports_nothing(ours: Modules) -> None:
    assert [item.target for item in ours["solstice"].imports if item.target != "__future__"] == []


def test_programs_are_run_through_one_door_and_nothing_is_pickled(ours: Modules) -> None:
    assert list(forbidden(ours)) == []


def test_the_supervisor_loads_neither_libvirt_nor_a_database_driver(ours: Modules) -> None:
    starts = ours.keys() & {"solstice.supervisor.core", "solstice.cli.serve"}
    assert starts
    for start in starts:
        assert {name.split(".")[0] for name in loaded_with(ours, start)} & HEAVY == set()


def test_the_back_ends_have_the_same_file_names() -> None:
    """zones/ may have less than libvirt/ until it is complete, and nothing of its own."""
    folders = {name: ROOT / "solstice/hypervisors" / name for name in ("libvirt", "zones")}
    files = {name: {path.name for path in folder.glob("*.py")} for name, folder in folders.items()}
    assert files["zones"] <= files["libvirt"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree that breaks no rule."""
    plant(tmp_path, "solstice/__init__.py", "")
    plant(tmp_path, "solstice/errors.py", "from solstice import __version__\n")
    plant(tmp_path, "solstice/model.py", "from solstice.errors import Cause\n")
    plant(tmp_path, "solstice/host/__init__.py", "")
    plant(tmp_path, "solstice/host/processes.py", "import subprocess\nfrom . import files\n")
    plant(tmp_path, "solstice/host/files.py", "from solstice import model\n")
    plant(tmp_path, "solstice/store/__init__.py", "")
    plant(tmp_path, "solstice/store/engine.py", "import sqlalchemy.engine\n")
    return tmp_path


def plant(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def complaints(root: Path) -> list[str]:
    modules = read(root)
    return [*upward(modules), *forbidden(modules)]


def test_a_tree_that_breaks_no_rule_is_accepted(tree: Path) -> None:
    assert complaints(tree) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("solstice/errors.py", "import solstice.model\n"),
        ("solstice/errors.py", "def late():\n    from solstice import model\n"),
        ("solstice/errors.py", "from . import model\n"),
        ("solstice/errors.py", "import typing\nif typing.TYPE_CHECKING:\n    from solstice.model import Image\n"),
        ("solstice/logs.py", "from solstice.config import settings\n"),
        ("solstice/store/queries.py", "from solstice.broker.address import Address\n"),
        ("solstice/host/files.py", "from ..store.engine import opened\n"),
        ("solstice/worker/life.py", "from solstice.store import engine\n"),
        ("solstice/worker/life.py", "from solstice.broker import address\n"),
        ("solstice/__init__.py", "from solstice import errors\n"),
        ("solstice/store/engine.py", "import subprocess\n"),
        ("solstice/host/processes.py", "import multiprocessing.connection\n"),
        ("solstice/host/files.py", "def late():\n    from pickle import loads\n"),
    ],
)
def test_a_planted_fault_is_found_at_its_line(tree: Path, path: str, text: str) -> None:
    plant(tree, path, text)
    [complaint] = complaints(tree)
    assert complaint.startswith(f"{tree / path}:{text.count(chr(10))}: ")


def test_what_a_module_loads_is_followed_to_the_end_but_not_into_functions(tree: Path) -> None:
    plant(tree, "solstice/supervisor/core.py", "from solstice.supervisor import view\n")
    plant(tree, "solstice/supervisor/view.py", "def late():\n    import solstice.store.engine\n")
    assert "sqlalchemy" not in loaded_with(read(tree), "solstice.supervisor.core")
    plant(tree, "solstice/supervisor/view.py", "class Early:\n    from solstice.store.engine import Engine\n")
    assert "sqlalchemy" in loaded_with(read(tree), "solstice.supervisor.core")


def test_a_package_is_loaded_with_its_modules(tree: Path) -> None:
    plant(tree, "solstice/store/__init__.py", "import sqlite3\n")
    plant(tree, "solstice/store/names.py", "")
    assert "sqlite3" in loaded_with(read(tree), "solstice.store.names")
