"""mosquitto_pub and mosquitto_sub, as a person uses them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from tests.servers.stack import Stack


@dataclass(frozen=True, slots=True)
class Word:
    """One message: its topic, whether it was retained, and its payload."""

    topic: str
    retained: bool
    payload: dict[str, Any]


class Listener:
    """Messages of a running mosquitto_sub."""

    def __init__(self, heard: Queue[Word]) -> None:
        self._heard = heard

    def next(self, patience: float = 30) -> Word:
        """Return the next message, or fail."""
        try:
            return self._heard.get(timeout=patience)
        except Empty:
            raise AssertionError(f"no message within {patience} s") from None

    def rest(self) -> list[Word]:
        """Return what has come and was not taken yet."""
        found = []
        while not self._heard.empty():
            found.append(self._heard.get())
        return found

    def final(self, command: str, patience: float = 30) -> Word:
        """Return the last word on a command; the ones before it are dropped."""
        while True:
            word = self.next(patience)
            ends = word.payload["status"] in {"succeeded", "failed", "expired", "rejected"}
            if word.topic.endswith(command) and ends:
                return word


def publish(
    stack: Stack, topic: str, payload: str | bytes, *options: str, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Publish with the operator's certificate, QoS 1; *topic* begins after the root."""
    root = stack.endpoints["topic_root"]
    return mosquitto_pub([*stack.mqtt(), "-t", f"{root}/{topic}", *options], payload, expect=expect)


def mosquitto_pub(
    arguments: list[str], payload: str | bytes, *, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run mosquitto_pub with QoS 1 and *payload* on its standard input."""
    raw = payload.encode() if isinstance(payload, str) else payload
    done = subprocess.run(
        ["mosquitto_pub", *arguments, "-q", "1", "-s"],
        input=raw,
        capture_output=True,
        check=False,
        timeout=30,
    )
    if expect is not None:
        assert done.returncode == expect, done.stderr
    said = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def device_arguments(stack: Stack, folder: Path) -> list[str]:
    """Return the options of mosquitto_pub for the device whose data directory is *folder*."""
    at, identity = stack.endpoints, folder / "identity"
    return [
        *("-h", at["mqtt_host"], "-p", str(at["device_mqtt_port"]), "--cafile", str(identity / "ca.pem")),
        *("--cert", str(identity / "cert.pem"), "--key", str(identity / "key.pem")),
    ]


@contextmanager
def listening(stack: Stack, *filters: str, who: str = "operator") -> Iterator[Listener]:
    """Run mosquitto_sub with the certificate of *who* (or `cloud`) on *filters*, which begin after the root.

    The block begins when the subscription stands.
    """
    root = stack.endpoints["topic_root"]
    wanted = [word for each in filters for word in ("-t", f"{root}/{each}")]
    pass_ = [word.replace("/passes/operator.", f"/passes/{who}.") for word in stack.mqtt()]
    process = subprocess.Popen(
        [
            *("stdbuf", "-oL", "mosquitto_sub", *pass_, *wanted),
            *("-q", "1", "-V", "5", "-d", "-F", "MESSAGE %r %t %p"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    heard: Queue[Word] = Queue()
    ready: Queue[str] = Queue()

    def read() -> None:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Subscribed"):
                ready.put("")
            elif line.startswith("MESSAGE "):
                _, retained, topic, payload = line.rstrip("\n").split(" ", 3)
                heard.put(Word(topic, retained == "1", json.loads(payload) if payload else {}))
        ready.put("".join(said) or "mosquitto_sub ended")

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        trouble = ready.get(timeout=15)
        assert not trouble, trouble
        yield Listener(heard)
    finally:
        process.terminate()
        process.wait(timeout=10)
        reader.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()
