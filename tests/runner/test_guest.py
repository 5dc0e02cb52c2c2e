"""guest.sh under every shell, over a real terminal line, against the host's own protocol code."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import pytest

from solstice.protocol import runner
from solstice.protocol.runner import PROTOCOL, Bye, Hello, Rebooted, StepEnd, StepStart
from solstice.runner.script import script
from tests.runner.peer import GUARD, GUEST, NONCE, Peer


def test_script_is_the_file_and_begins_as_cloud_init_wants_it() -> None:
    assert script() == GUEST.read_bytes()
    assert script().startswith(b"#!/bin/sh\n")


def test_hello_has_the_protocol_version_and_the_system(state: Path, path: str) -> None:
    with Peer(state, path) as peer:
        assert peer.welcome() == Hello(PROTOCOL, f"{platform.system()} {platform.release()} {platform.machine()}")
        assert peer.output() == b""


def test_three_steps_end_with_their_exit_codes(peer: Peer) -> None:
    assert peer.step("echo one; echo two >&2", index=0) == (StepEnd(0, 0), b"one\ntwo\n")
    assert peer.step("printf three; exit 7", index=1) == (StepEnd(1, 7), b"three")
    assert peer.step("kill -KILL $$", index=2) == (StepEnd(2, 137), b"")


def test_the_guests_own_time_is_said_with_hello_and_around_each_step(peer: Peer) -> None:
    before = int(time.time())
    peer.step("sleep 1.1")
    peer.step("true", index=1)
    kinds, times = zip(*peer.times, strict=True)
    assert kinds == (Hello, StepStart, StepEnd, StepStart, StepEnd)
    hello, start, end, *_ = times
    assert hello <= before + 1
    assert before <= start < end <= int(time.time())
    assert list(times) == sorted(times)


@pytest.mark.parametrize("says", ["echo +%s", "exit 1", "echo 0123", "echo -5"])
def test_a_guest_whose_date_has_no_seconds_says_no_time(
    says: str, shell: str, state: Path, path: str, tmp_path: Path
) -> None:
    if "busybox" in shell:
        pytest.skip("busybox takes its own date, whatever the PATH")
    date = tmp_path / "bin" / "date"
    date.write_text(f"#!/bin/sh\n{says}\n")
    date.chmod(0o755)
    with Peer(state, path) as peer:
        peer.welcome()
        assert peer.step("true") == (StepEnd(0, 0), b"")
        assert peer.times == [(Hello, None), (StepStart, None), (StepEnd, None)]


def test_a_failing_command_ends_the_step(peer: Peer) -> None:
    assert peer.step("echo a\nfalse\necho b") == (StepEnd(0, 1), b"a\n")


def test_a_command_that_does_not_exist_is_127_and_named(peer: Peer) -> None:
    event, output = peer.step("no-such-command")
    assert event == StepEnd(0, 127)
    assert b"no-such-command" in output


def test_environment_arrives_whatever_the_values_are(peer: Peer) -> None:
    env = {"A": 'it\'s "$HOME" `id` \\', "B": "two\nlines\n", "C": "", "D": "ä€😀\x1e\x01\r", "CI": "true"}
    event, output = peer.step('env printf \'%s|\' "$A" "$B" "$C" "$D"; env | grep ^CI=', env)
    assert event == StepEnd(0, 0)
    assert output.decode() == "|".join([env["A"], env["B"], env["C"], env["D"], "CI=true\n"])


def test_environment_of_one_step_is_not_that_of_the_next(peer: Peer, state: Path) -> None:
    assert peer.step('echo "${A-unset}"', {"A": "set"}) == (StepEnd(0, 0), b"set\n")
    assert peer.step('echo "${A-unset}"') == (StepEnd(0, 0), b"unset\n")
    assert [file.name for file in state.glob("*.env")] == []


def test_steps_share_a_fresh_work_directory_and_have_no_input(peer: Peer, state: Path) -> None:
    assert peer.step("pwd; ls -A; cat; touch kept") == (StepEnd(0, 0), f"{state}/work\n".encode())
    assert peer.step("ls -A") == (StepEnd(0, 0), b"kept\n")


def test_a_step_gets_sigint_back(peer: Peer, shell: str) -> None:
    if "busybox" in shell:
        pytest.skip("busybox has no tool that can")
    script = 'env -i PATH="$PATH" grep SigIgn /proc/self/status'
    event, output = peer.step(script)
    assert event == StepEnd(0, 0)
    assert int(output.split()[1], 16) & 0b110 == 0


def test_what_a_step_prints_cannot_be_a_record(peer: Peer) -> None:
    forged = (
        b'\x1e{"type":"hello","protocol":1,"system":"x"}\n'
        b'\x1e{"type":"step_end","index":0,"exit_code":0}\n'
        b"\x1e" + GUARD.encode() + b'{"type":"step_end","index":0,"exit_code":0}\n'
        b'\x1e00112233445566778899aabbccddeeff{"type":"bye"}\n\x1e'
    )
    octal = "".join(f"\\{byte:03o}" for byte in forged)
    assert peer.step(f"printf '{octal}'; exit 3") == (StepEnd(0, 3), forged)


def test_nonce_is_in_no_argument_environment_or_file(peer: Peer, state: Path) -> None:
    script = (
        f"cat /proc/{peer.process.pid}/environ /proc/{peer.process.pid}/cmdline /proc/self/environ | tr '\\0' ' '\n"
        f"! grep -rl [a]1a1a1a1a1a1 {state} && set | grep -c a1a1a1a1 || :"
    )
    event, output = peer.step(script)
    assert event == StepEnd(0, 0)
    assert NONCE.encode() not in output
    assert output.endswith(b"0\n")


def test_every_byte_of_binary_output_arrives(peer: Peer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 700 + b"\x1e{" * 10_000 + os.urandom(50_000)
    file = tmp_path / "data"
    file.write_bytes(data)
    event, output = peer.step(f"cat {file}")
    assert event == StepEnd(0, 0)
    assert hashlib.sha256(output).hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_script_of_256_kib_arrives_whole_and_the_next_message_too(peer: Peer) -> None:
    lines = "".join(f": {number:08} {'ä' * 40}\n" for number in range(3000))
    script = lines + 'cksum <"$0"; wc -c <"$0"'
    assert len(script.encode()) > 256 << 10
    event, output = peer.step(script)
    assert event == StepEnd(0, 0)
    assert int(output.split()[-1]) == len(script.encode())
    assert peer.step("echo next", index=1) == (StepEnd(1, 0), b"next\n")


def test_a_script_that_comes_in_drops_arrives_whole(peer: Peer) -> None:
    data = runner.step(0, {"A": "b" * 700}, 'echo "$A" ' + "#" * 900)
    for at in range(0, len(data), 37):
        peer.send(data[at : at + 37])
    assert peer.event() == StepEnd(0, 0)
    assert peer.output() == b"b" * 700 + b"\n"


def test_a_process_left_by_a_step_splits_no_record(peer: Peer) -> None:
    for index, text in enumerate(["(while :; do echo leftover; done) & sleep 0.1; exit 5", *["echo step; exit 5"] * 3]):
        peer.send(runner.step(index, {}, text))
        assert peer.event() == StepEnd(index, 5)
    peer.send(runner.bye())
    assert peer.event() == Bye()
    *whole, _torn_by_the_end = re.split(rb"\n+", peer.output())
    assert set(whole) <= {b"leftover", b"step", b""}


def test_cancel_ends_a_step_and_what_it_started(peer: Peer) -> None:
    peer.send(runner.step(0, {}, "sleep 1000 & echo child $!; wait"))
    peer.wait_output(b"\n")
    child = int(peer.output().split()[1])
    peer.send(runner.cancel())
    assert peer.event() == StepEnd(0, 143)
    # the signal has been sent to all of them at once, and each dies in its own time; if one does not, the step goes on
    alive = f"[ -e /proc/{child} ] && ! grep -q 'State:.*zombie' /proc/{child}/status 2>/dev/null"
    assert peer.step(f"while {alive}; do sleep 0.05; done; echo gone")[1] == b"gone\n"


def test_a_step_may_clean_up_when_it_is_cancelled_and_its_own_status_counts(peer: Peer) -> None:
    peer.send(runner.step(0, {}, "trap 'echo cleaning; exit 9' TERM; echo ready; while :; do sleep 0.05 || :; done"))
    peer.wait_output(b"ready\n")
    peer.send(runner.cancel())
    assert peer.event() == StepEnd(0, 9)
    assert b"cleaning\n" in peer.output()


def test_cancel_without_a_step_does_nothing(peer: Peer) -> None:
    peer.send(runner.cancel())
    assert peer.step("echo ok") == (StepEnd(0, 0), b"ok\n")
    peer.send(runner.cancel())
    assert peer.step("echo ok", index=1) == (StepEnd(1, 0), b"ok\n")


def test_bye_comes_after_all_output_and_then_the_runner_is_still(peer: Peer) -> None:
    peer.send(runner.step(0, {}, "seq 20000"))
    assert peer.event() == StepEnd(0, 0)
    peer.send(runner.bye())
    assert peer.event() == Bye()
    assert peer.output() == "".join(f"{number}\n" for number in range(1, 20001)).encode()
    peer.send(runner.step(1, {}, "echo late"))
    assert peer.process.poll() is None


def test_a_second_start_says_rebooted_and_runs_nothing(state: Path, path: str) -> None:
    with Peer(state, path) as peer:
        peer.welcome()
        assert peer.step("echo first")[0] == StepEnd(0, 0)
    guard = state / "guard"
    assert guard.stat().st_mode & 0o777 == 0o600
    assert guard.read_text() == GUARD + "\n"
    with Peer(state, path) as again:
        assert again.event() == Rebooted()
        assert again.process.wait(10) == 0
        assert again.output() == b""


def test_a_start_that_was_never_welcomed_leaves_no_guard(state: Path, path: str) -> None:
    for _ in range(2):
        with Peer(state, path) as peer:
            assert isinstance(peer.event(), Hello)


def test_a_port_that_cannot_be_opened_ends_the_runner(state: Path, path: str, tmp_path: Path) -> None:
    done = subprocess.run(["sh", GUEST, "run", tmp_path, state], env={"PATH": path}, timeout=20, check=False)
    assert done.returncode == 1
