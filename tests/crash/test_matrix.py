"""Hit anything at any point, by any fault: each accepted job ends once, says so once, and nothing is left."""

from __future__ import annotations

import pytest

from tests.crash.matrix import Case, cases
from tests.crash.whole import Wholes

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_whole_survives(wholes: Wholes, survived: dict[Case, bool], case: Case) -> None:
    survived[case] = False
    wholes.hit(case)
    survived[case] = True
