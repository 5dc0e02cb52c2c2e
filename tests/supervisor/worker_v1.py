"""A worker as version 1 was: a program of its own that knows nothing of Solstice's modules, only the bytes.

`worker_v1.py RECORD`: keeps RECORD/events.jsonl, listens on RECORD/worker.sock, and runs until it is told to stop.
What stands here is never changed: such workers may be at work on any host that is upgraded.
"""

import json
import os
import socket
import sys

JOB = "01234567-89ab-cdef-0123-456789abcdef"


def report(number: int, kind: str, body: dict[str, object]) -> bytes:
    message = {"v": 1, "n": number, "at": 1700000000.0 + number, "type": kind, "report": body}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def main(record: str) -> None:
    identity = {"host": "0123456789ab", "pid": os.getpid(), "started": 1700000000.0, "job": JOB, "attempt": 1}
    outcome: dict[str, object] = {
        "state": "errored",
        "cause": "infra.host_stopping",
        "detail": "told to",
        "exit_code": None,
        "steps": [],
    }
    lines = [
        report(0, "identity", identity),
        report(1, "phase", {"phase": "preparing"}),
        report(2, "phase", {"phase": "booting"}),
        report(3, "phase", {"phase": "running"}),
    ]
    last = [
        report(4, "outcome", {"outcome": outcome}),
        report(5, "phase", {"phase": "cleaning"}),
        report(6, "done", {}),
    ]
    with open(f"{record}/events.jsonl", "ab") as journal, socket.socket(socket.AF_UNIX) as door:  # noqa: PTH123
        door.bind(f"{record}/worker.sock")
        door.listen()
        journal.write(b"".join(lines))
        journal.flush()
        print("ready", flush=True)
        connection, _ = door.accept()
        with connection, connection.makefile("rb") as heard:
            attach = json.loads(heard.readline())
            assert attach == {"v": 1, "type": "attach", "after": attach["after"]}
            connection.sendall(b"".join(lines[attach["after"] + 1 :]))
            connection.sendall(b'{"v":1,"at":1700000010.5,"type":"alive"}\n')
            stop = json.loads(heard.readline())
            assert (stop["v"], stop["type"]) == (1, "stop")
            journal.write(b"".join(last))
            journal.flush()
            connection.sendall(b"".join(last))
    os.unlink(f"{record}/worker.sock")  # noqa: PTH108


main(sys.argv[1])
