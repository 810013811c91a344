"""`fleet demo` does what it promises, and the lines it prints work in a shell."""

import re
import subprocess
import sys
from pathlib import Path

from tests.servers.boxes import LABEL, boxes, networks, volumes
from tests.servers.docker import docker
from tests.servers.stack import Stack, fleet

FLEET = Path(sys.executable).with_name("fleet")


def shell(line: str, folder: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def line_of(shown: str, title: str) -> str:
    found = re.search(rf"^{title} +(.*)$", shown, re.MULTILINE)
    assert found, f"no line {title!r} in:\n{shown}"
    return found[1]


def test_the_demo_shows_three_devices_and_six_healthy_containers_and_can_be_tried(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    before = set(docker("ps", "-aq", "--filter", f"label={LABEL}").split())
    try:
        shown = subprocess.run(
            [FLEET, "demo", "--data-dir", folder],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert shown.returncode == 0, f"{shown.stdout}\n{shown.stderr}"
        demo = Stack(folder)
        devices = demo.devices

        assert "3 devices online, 6 services healthy" in shown.stdout
        assert len(devices) == 3
        assert all(demo.status(device)["online"] for device in devices)
        healthy = docker("ps", "-q", "--filter", f"label={LABEL}", "--filter", "health=healthy").split()
        assert len(set(healthy) - before) == 6

        assert devices[0] in shell(line_of(shown.stdout, "try"), tmp_path)
        was = boxes(devices[0])["api"].started_at
        shell(line_of(shown.stdout, "MQTT"), tmp_path)
        commands = f"/edge/devices/{devices[0]}/commands"
        newest = demo.get(commands)["commands"][0]
        row = demo.get(f"/edge/commands/{newest['id']}", params={"wait": 20})
        assert (row["name"], row["status"]) == ("restart", "succeeded")
        assert boxes(devices[0])["api"].started_at > was
        assert "gateway-01" in shell(line_of(shown.stdout, "look"), tmp_path)

        shell(line_of(shown.stdout, "stop"), tmp_path)
        for device in devices:
            assert boxes(device) == {}
            assert networks(device) == []
        assert set(docker("ps", "-aq", "--filter", f"label={LABEL}").split()) <= before
    finally:
        fleet("down", "--purge", "--data-dir", str(folder), timeout=60)
    assert all(volumes(device) == [] for device in devices)
    assert not folder.exists()
