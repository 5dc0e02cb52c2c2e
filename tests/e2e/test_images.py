"""Versions of an image under a running service: tested by a boot, told in results, kept while a VM stands on one."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.service import Service

pytestmark = [pytest.mark.broker, pytest.mark.libvirt]

MAP = "default_label: tiny\nimages:\n  tiny:\n    source: tiny.qcow2\n    local_path: images/tiny.img\n"
TESTED = f"{MAP}    boot_test: true\n"


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def link(service: Service) -> Path:
    return service.image.parent / "images" / "tiny.img"


def said(service: Service, *words: str) -> str:
    done = service.command("images", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_boots_before_it_is_used_and_its_digest_is_in_the_result(make: Make) -> None:
    service = make(image_map=TESTED)
    service.start()
    service.said("the new version boots", 240.0)
    service.said("image is ready")
    event = service.outcome("true")
    assert (event["state"], event["image_digest"]) == ("succeeded", digest(service.image))
    assert digest(service.image) in service.command("show", event["job_id"]).stdout
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])
    assert service.end() == 0


def test_a_version_that_does_not_boot_is_refused_and_the_old_one_stays_in_use(make: Make) -> None:
    service = make(image_map=TESTED, BOOT_TIMEOUT="90")
    service.start()
    service.said("image is ready", 240.0)
    before = digest(service.image)
    service.image.chmod(0o644)
    service.image.write_bytes(bytes(16 << 20))
    assert "once the supervisor has booted a machine from it" in said(service, "refresh")
    service.said("the new version does not boot", 240.0)
    event = service.outcome("true")
    assert (event["state"], event["image_digest"]) == ("succeeded", before)
    assert "refused: it did not pass its boot test" in said(service, "list")
    assert "nothing new" in said(service, "refresh")
    service.done(event["job_id"])
    service.assert_nothing_left(event["job_id"])


def test_a_job_keeps_the_version_that_it_began_with(make: Make) -> None:
    service = make(image_map=MAP)
    service.start()
    service.said("image is ready")
    old, first = link(service).resolve(), digest(service.image)

    def renew(job: str) -> None:
        service.said(rf"attempt is running .*job={job}")
        other = service.image.with_name("other")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "-c", service.image, other], check=True)
        other.rename(service.image)
        said(service, "refresh")
        os.utime(link(service), (1.0, 1.0), follow_symlinks=False)
        assert "a virtual machine stands on it" in said(service, "prune", "--older-than", "0")

    event = service.outcome("sleep 20", during=renew)
    assert event["image_digest"] == first != digest(service.image)
    service.done(event["job_id"])
    assert "removed" in said(service, "prune", "--older-than", "0")
    assert not old.exists()
    again = service.outcome("true")
    assert (again["state"], again["image_digest"]) == ("succeeded", digest(service.image))
