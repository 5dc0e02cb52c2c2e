"""What a start refuses, and what it says then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.service import Service


@pytest.mark.broker
def test_a_second_supervisor_of_a_state_directory_is_refused_with_the_holders_pid(noop: Service) -> None:
    second = Service(noop.state.parent, noop.amqp_url, None)
    second.launch()
    assert second.wait() == 2
    assert f"a supervisor with pid {noop.process.pid} holds it" in second.text
    assert "--state-dir" in second.text


def test_auto_never_picks_noop(reachable: Path) -> None:
    service = Service(
        reachable,
        "amqp://localhost:1",
        None,
        SOLSTICE_BACKEND="auto",
        LIBVIRT_URI="qemu:///system?socket=/nonexistent/libvirt-sock",
    )
    service.launch()
    assert service.wait() == 2
    assert "the back end libvirt cannot be used" in service.text
    assert "libvirtd" in service.text
    assert "Traceback" not in service.text


def test_a_wrong_image_map_is_refused_with_file_line_and_key(reachable: Path) -> None:
    service = Service(reachable, "amqp://localhost:1", None)
    path = Path(service.environment["ORCH_CONFIG"])
    path.write_text("default_label: tiny\nimages:\n  tiny:\n    sauce: /x\n    local_path: /y\n")
    service.launch()
    assert service.wait() == 2
    assert f"{path}:4: images.tiny.sauce" in service.text
    assert "source" in service.text
    assert "Traceback" not in service.text
