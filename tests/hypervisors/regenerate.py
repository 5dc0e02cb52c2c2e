"""Writes the golden files anew: `python -m tests.hypervisors.regenerate`.  Read the difference before committing it."""

from __future__ import annotations

from tests.hypervisors.specs import CASES, FOLDER, golden


def main() -> None:
    for path in FOLDER.iterdir():
        path.unlink()
    for name, case in CASES.items():
        golden(name).write_text(case.xml())


if __name__ == "__main__":
    main()
