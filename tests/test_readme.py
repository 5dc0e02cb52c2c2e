"""The tables of the README are those of the code."""

from __future__ import annotations

import pytest

from solstice.config.settings import SETTINGS, Setting
from solstice.errors import Cause
from tests.sources import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.env)
def test_the_readme_has_the_setting_with_its_default(setting: Setting) -> None:
    assert f"| `{setting.env}` | {setting.default} | {setting.help} |\n" in README


@pytest.mark.parametrize("cause", Cause)
def test_the_readme_has_the_cause_with_its_remedy(cause: Cause) -> None:
    assert f"| `{cause}` | {cause.sentence} | {cause.remedy} |\n" in README
