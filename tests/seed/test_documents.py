import pytest
import yaml

from solstice.errors import InternalError
from solstice.model import AttemptId
from solstice.seed.documents import nocloud

ID = AttemptId("0123456789ab", "7f3a91c2-0000-4000-8000-000000000001", 2)
RUNNER = b"#!/bin/sh\nset -eu\nprintf '\\303\\244\\n'\n"


def test_meta_data_names_the_instance_after_the_attempt() -> None:
    meta_data = yaml.safe_load(nocloud(ID, RUNNER).files["meta-data"])
    assert meta_data == {
        "instance-id": "solstice-0123456789ab-7f3a91c2-0000-4000-8000-000000000001-2",
        "local-hostname": "solstice-7f3a91c2",
    }


def test_another_attempt_is_another_instance() -> None:
    first = nocloud(ID, RUNNER).files["meta-data"]
    assert nocloud(AttemptId(ID.owner, ID.job, 3), RUNNER).files["meta-data"] != first


def test_user_data_is_the_runner_unchanged() -> None:
    files = nocloud(ID, RUNNER).files
    assert set(files) == {"meta-data", "user-data", "runner"}
    assert files["user-data"] == files["runner"] == RUNNER


@pytest.mark.parametrize("runner", [b"", b"#cloud-config\n", b"\n#!/bin/sh\n", b"#!/bin/sh", b"#!/bin/sh\r\n"])
def test_a_runner_that_no_guest_would_execute_is_refused(runner: bytes) -> None:
    with pytest.raises(InternalError, match="not a shell script"):
        nocloud(ID, runner)
