"""The `fleet` command against a running stack: what it prints, its JSON, and its exit statuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.servers.shop import release, settle
from tests.servers.stack import Stack, fleet, until
from tests.servers.telemetry import readings

NAME = "gateway-01"


@pytest.fixture
def here(memory_stack: Stack) -> Stack:
    """The first device runs `web`, which prints a line each second."""
    chatty = {"name": "web", "image": "shop/chatty:1"}
    settle(memory_stack, memory_stack.devices[0], release("cli", chatty))
    return memory_stack


def run(stack: Stack, *words: str, status: int = 0) -> str:
    done = fleet(*words, "--data-dir", str(stack.directory))
    assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout if status == 0 else done.stderr


def as_json(stack: Stack, *words: str) -> Any:
    return json.loads(run(stack, *words, "--json"))


def test_devices_and_status_show_what_rest_knows(here: Stack) -> None:
    device = here.devices[0]

    assert device in run(here, "devices")
    listed = as_json(here, "devices", "--selector", "site=local", "--online")
    assert {each["id"] for each in listed} == set(here.devices)
    assert as_json(here, "status", NAME)["id"] == device
    assert "web" in run(here, "status", device[:13])


def test_deploy_watches_until_the_end_and_its_status_tells_how_it_went(here: Stack, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    web = {"name": "web", "image": "shop/chatty:1"}
    good.write_text(json.dumps(release("by-cli", web, version=uuid4().hex[:8])))
    bad.write_text(json.dumps(release("bad", {**web, "image": "shop/not-found:1"}, version=uuid4().hex[:8])))

    done = as_json(here, "deploy", str(good), "--device", NAME)
    failed = fleet("deploy", str(bad), "--device", NAME, "--data-dir", str(here.directory))

    assert [each["outcome"] for each in done["devices"]] == ["no_change"]
    assert failed.returncode == 1
    assert "failed_no_state_change" in failed.stdout + failed.stderr


def test_command_prints_the_answer_and_its_status_tells_how_it_went(here: Stack) -> None:
    row = as_json(here, "command", NAME, "ping", "echo=hello")
    assert (row["status"], row["data"]["echo"]) == ("succeeded", "hello")
    assert "restarted" in run(here, "command", NAME, "restart", "service=web")

    unknown = fleet("command", NAME, "restart", "service=nobody", "--data-dir", str(here.directory))
    assert unknown.returncode == 1
    assert "service.unknown" in unknown.stdout
    assert "command.unknown" in run(here, "command", NAME, "reboot", status=5)
    assert "device.unknown" in run(here, "command", "gateway-99", "ping", status=5)


def test_logs_print_lines(here: Stack) -> None:
    until(lambda: here.command(here.devices[0], "logs", service="web")["data"]["lines"], "a line")

    assert run(here, "logs", NAME, "web").strip()
    lines = as_json(here, "logs", NAME, "web", "--tail", "1")
    assert len(lines) == 1


def test_followed_logs_go_on_until_the_user_interrupts(here: Stack) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cloud.cli", "logs", NAME, "web", "--follow", "--tail", "0", "--json"),
            *("--data-dir", str(here.directory)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    finally:
        process.kill()

    assert json.loads(first) != json.loads(second)
    assert (process.returncode, complaint) == (0, "")
    commands = here.get(f"/edge/devices/{here.devices[0]}/commands")["commands"]
    followed = next(each for each in commands if each["name"] == "logs" and each["arguments"].get("follow"))
    row = here.get(f"/edge/commands/{followed['id']}", params={"wait": 10})
    assert row["status"] == "succeeded"


def test_metrics_show_readings(here: Stack) -> None:
    device = here.devices[0]
    until(lambda: readings(here, device), "a reading")

    series = as_json(here, "metrics", NAME, "--field", "load_1m")
    assert [each["field"] for each in series] == ["load_1m"]
    assert "load_1m" in run(here, "metrics", NAME)


def test_events_are_printed_one_a_line(here: Stack) -> None:
    lines = run(here, "events", "--since", "0", "--count", "3", "--json").splitlines()

    assert len(lines) == 3
    assert all({"id", "kind", "data"} <= set(json.loads(line)) for line in lines)
    assert run(here, "events", "--since", "0", "--count", "1", "--kind", "enrolled")


def test_a_key_can_be_made_used_and_revoked(here: Stack) -> None:
    url = here.endpoints["api_url"]
    made = as_json(here, "keys", "create", "reader", "--scope", "devices:read", "--days", "1")

    def with_key(*words: str) -> int:
        return fleet(*words, "--url", url, "--key", made["key"]).returncode

    assert with_key("devices") == 0
    assert with_key("command", NAME, "ping") == 4
    assert made["id"] in {each["id"] for each in as_json(here, "keys", "list")}
    run(here, "keys", "revoke", made["id"])
    assert with_key("devices") == 4


def test_doctor_finds_nothing_wrong_here(here: Stack) -> None:
    findings = as_json(here, "doctor")

    assert {"mosquitto", "docker", "disk", "api", "devices"} <= {each["check"] for each in findings}
    assert [each for each in findings if each["verdict"] == "failed"] == []


def test_a_stack_that_is_not_there_is_told_from_a_bad_key(here: Stack, tmp_path: Path) -> None:
    nobody = fleet("devices", "--url", "http://127.0.0.1:9/api/v1", "--key", "flk_x_y")
    stranger = fleet("devices", "--url", here.endpoints["api_url"], "--key", "flk_aaaaaaaaaaaa_wrong")
    nowhere = fleet("devices", "--data-dir", str(tmp_path))

    assert (nobody.returncode, stranger.returncode, nowhere.returncode) == (3, 4, 3)
    assert "api.unreachable" in nobody.stderr
    assert "auth." in stranger.stderr
    assert "fleet up" in nowhere.stderr
