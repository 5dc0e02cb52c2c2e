"""Hit anything at any point, by any fault: each accepted job ends once, says so once, and nothing is left."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.crash.conftest import Wholes
from tests.crash.matrix import Case, Kind, cases

pytestmark = pytest.mark.broker
_MARKS: dict[Kind, Collection[pytest.MarkDecorator]] = {
    Kind.SQLITE: (),
    Kind.POSTGRESQL: [pytest.mark.postgresql],
    Kind.LIBVIRT: [pytest.mark.libvirt],
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=_MARKS[case.kind], id=str(case)) for case in cases()])
def test_the_whole_survives(wholes: Wholes, survived: dict[Case, bool], case: Case) -> None:
    survived[case] = False
    wholes.hit(case)
    survived[case] = True
