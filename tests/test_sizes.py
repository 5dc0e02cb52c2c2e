"""A module fits into a head, a function onto a screen, and every module opens with its contract."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sources import ROOT, Module, Modules, read

MAX_MODULE = 400
MAX_FUNCTION = 50
# A module of tests is a list of facts, read one at a time; each fact obeys the common bound.
MAX_TEST_MODULE = 500


def long_functions(module: Module) -> list[str]:
    return [
        f"{module.path}:{node.lineno}: {node.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION
    ]


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


@pytest.fixture(scope="module")
def product() -> Modules:
    return read(ROOT)


@pytest.fixture(scope="module")
def tests() -> Modules:
    return read(ROOT, "tests")


def test_no_module_is_longer_than_400_lines(product: Modules) -> None:
    assert [str(module.path) for module in product.values() if lines(module.path) > MAX_MODULE] == []


def test_no_module_of_tests_is_longer_than_500_lines(tests: Modules) -> None:
    assert [str(module.path) for module in tests.values() if lines(module.path) > MAX_TEST_MODULE] == []


def test_no_function_is_longer_than_50_lines(product: Modules, tests: Modules) -> None:
    assert [place for module in [*product.values(), *tests.values()] for place in long_functions(module)] == []


def test_every_module_opens_with_its_contract(product: Modules) -> None:
    assert [str(module.path) for module in product.values() if not ast.get_docstring(module.tree)] == []


def test_the_guest_side_is_one_file_of_at_most_400_lines() -> None:
    [script] = (ROOT / "solstice").rglob("*.sh")
    assert script.name == "guest.sh"
    assert lines(script) <= MAX_MODULE


@pytest.mark.parametrize(("length", "complaints"), [(MAX_FUNCTION, 0), (MAX_FUNCTION + 1, 1)])
def test_the_measure_of_a_function_is_its_lines(tmp_path: Path, length: int, complaints: int) -> None:
    module = tmp_path / "solstice" / "big.py"
    module.parent.mkdir()
    module.write_text("class C:\n    async def f(self):\n" + "        pass\n" * (length - 1))
    [read_back] = read(tmp_path).values()
    assert len(long_functions(read_back)) == complaints
