from pathlib import Path

import pytest

from solstice.images.part import Record, drop, open_part

URL = "https://me:secret@host/image"
RECORD = Record("https://***@host/image", '"etag"', "Sun, 06 Nov 1994 08:49:37 GMT", 100)


@pytest.mark.parametrize(
    ("etag", "modified", "validator"),
    [('"a"', "then", '"a"'), ('W/"a"', "then", "then"), ("", "then", "then"), ('W/"a"', "", ""), ("", "", "")],
)
def test_only_a_strong_etag_or_a_date_tells_states_apart(etag: str, modified: str, validator: str) -> None:
    assert Record("url", etag, modified).validator == validator


def test_a_part_is_found_again_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / "part"
    part = open_part(path, URL)
    part.begin(RECORD)
    assert part.write(0, b"0123456789") == 10
    part.close()
    part = open_part(path, URL)
    assert (part.record, part.size) == (RECORD, 10)
    part.close()
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_a_part_of_another_url_is_emptied_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "part"
    part = open_part(path, URL)
    part.begin(RECORD)
    part.write(0, b"0123456789")
    part.close()
    part = open_part(path, "https://host/other")
    assert (part.record, part.size) == (None, 0)
    part.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(b"root")
    (tmp_path / "part").symlink_to(tmp_path / "passwd")
    with pytest.raises(OSError, match="symbolic links"):
        open_part(tmp_path / "part", URL)
    drop(tmp_path / "part")
    assert (tmp_path / "passwd").read_bytes() == b"root"
