"""`fleet up` starts a whole stack and keeps it up; `fleet down` leaves nothing behind."""

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from cloud.stack.processes import MARK
from tests.servers.boxes import boxes, networks, starts_in_volume, volumes
from tests.servers.mqtt_tools import listening
from tests.servers.postgres import Postgres
from tests.servers.shop import api, release, settle, store
from tests.servers.stack import Stack, fleet, stack, until
from tests.servers.telemetry import readings

PROMISED = {
    *("api_url", "api_key", "mqtt_host", "mqtt_port", "ca_file", "operator_cert", "operator_key"),
    *("topic_root", "metrics_url", "device_ids", "pids"),
}


def processes_of(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_endpoints_say_all_that_is_needed_to_use_the_stack(memory_stack: Stack) -> None:
    at = memory_stack.endpoints

    assert set(at) >= PROMISED
    assert (memory_stack.directory / "endpoints.json").stat().st_mode & 0o077 == 0
    assert memory_stack.call("GET", "/health").json()["status"] == "ok"
    assert {each["id"] for each in memory_stack.get("/edge/devices")["devices"]} >= set(at["device_ids"])
    with listening(memory_stack, "+/up/presence") as heard:
        assert {heard.next().topic.split("/")[2] for _ in at["device_ids"]} <= set(at["device_ids"])
    assert at["metrics_url"].startswith("sqlite")
    assert set(at["pids"]) == {"stack", "broker", "cloud", "gateway-01", "gateway-02"}
    for name, pid in at["pids"].items():
        assert psutil.Process(pid).environ()[MARK] == str(memory_stack.directory), name


def test_a_second_stack_in_the_same_directory_is_refused(memory_stack: Stack) -> None:
    before = memory_stack.endpoints

    again = fleet("up", "--detach", "--data-dir", str(memory_stack.directory), "--engine", "memory")

    assert again.returncode == 1
    assert "runs in" in again.stderr
    assert "fleet down" in again.stderr
    assert memory_stack.endpoints == before
    assert memory_stack.command(memory_stack.devices[0], "ping")["status"] == "succeeded"


@pytest.mark.parametrize("part", ["broker", "cloud", "gateway-01"])
def test_a_killed_process_is_started_again_and_its_new_id_told(fragile_stack: Stack, part: str) -> None:
    before = fragile_stack.endpoints["pids"]

    os.kill(before[part], signal.SIGKILL)
    after = until(
        lambda: (
            found
            if (found := fragile_stack.endpoints["pids"]).get(part, before[part]) != before[part]
            else None
        ),
        f"{part} to be started again",
    )

    assert {**after, part: 0} == {**before, part: 0}
    assert psutil.pid_exists(after[part])
    until(lambda: pings(fragile_stack), "the first device to answer a ping")


def pings(stack: Stack) -> bool:
    try:
        return bool(stack.command(stack.devices[0], "ping", wait=5)["status"] == "succeeded")
    except httpx.TransportError:
        return False


def test_down_leaves_nothing_behind_even_without_a_supervisor_and_up_brings_all_back(
    tmp_path: Path, demo_image: str
) -> None:
    shop = release("shop", store(demo_image), api(demo_image))
    with stack(tmp_path, "--devices", "1", "--engine", "docker") as running:
        (device,) = running.devices
        settle(running, device, shop)
        assert starts_in_volume(boxes(device)["store"]) == 1
        first = running.endpoints

        os.kill(running.pid("stack"), signal.SIGKILL)
        ended = fleet("down", "--data-dir", str(running.directory), "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["processes"] >= 3
        assert_nothing_is_left(running.directory, device)
        assert not (running.directory / "endpoints.json").exists()
        assert len(volumes(device)) == 1, "data stays for the next start"

        again = fleet(
            "up",
            "--detach",
            "--data-dir",
            str(running.directory),
            "--devices",
            "1",
            "--http-port",
            "0",
            "--mqtt-port",
            "0",
        )
        assert again.returncode == 0, again.stderr
        same = PROMISED - {"pids"} | {"device_mqtt_port"}
        assert {key: running.endpoints[key] for key in same} == {key: first[key] for key in same}
        until(lambda: all(box.well for box in boxes(device).values()) and len(boxes(device)) == 2, "both")
        assert until(lambda: starts_in_volume(boxes(device)["store"]) == 2, "its data to be as it was")
        until(lambda: running.status(device)["settled"], "the device to report it")

    assert_nothing_is_left(running.directory, device)
    assert volumes(device) == []
    assert not running.directory.exists()


def assert_nothing_is_left(directory: Path, device: str) -> None:
    assert boxes(device) == {}
    assert networks(device) == []
    assert processes_of(directory) == []


def test_samples_are_kept_in_influxdb_when_asked(tmp_path: Path) -> None:
    with stack(tmp_path, "--devices", "1", "--engine", "memory", "--metrics", "influx") as running:
        (device,) = running.devices
        assert "influxdb" in running.endpoints["pids"]

        over_rest = until(lambda: readings(running, device), "readings through REST")
        answer = httpx.get(
            f"{running.endpoints['metrics_url']}/query",
            params={"db": "fleet", "q": f'SELECT "load_1m" FROM "device" WHERE device = \'{device}\''},
            trust_env=False,
        ).json()

        (series,) = answer["results"][0]["series"]
        assert len(series["values"]) >= len(over_rest) > 0


def test_everything_is_kept_in_postgresql_when_asked(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.create_database()
    with stack(tmp_path, "--devices", "1", "--engine", "memory", "--database-url", url) as running:
        (device,) = running.devices
        settle(running, device, release("shop", {"name": "web", "image": "shop/web:1"}))
        assert running.command(device, "restart", service="web")["status"] == "succeeded"
        assert until(lambda: readings(running, device), "readings")
        assert not (running.directory / "cloud" / "fleet.db").exists()

    asked = "SELECT (SELECT count(*) FROM commands), (SELECT count(*) FROM devices)"
    shown = subprocess.run(
        ["psql", "-At", url.replace("+asyncpg", ""), "-c", asked], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "1|1"


def test_a_port_that_is_taken_is_named(tmp_path: Path, memory_stack: Stack) -> None:
    taken = str(memory_stack.endpoints["mqtt_port"])

    refused = fleet("up", "--detach", "--data-dir", str(tmp_path / "stack"), "--mqtt-port", taken)

    assert refused.returncode == 1
    assert taken in refused.stderr
    assert processes_of(tmp_path / "stack") == []


def test_down_of_a_stack_that_never_was_is_told_from_one_that_is_down(tmp_path: Path) -> None:
    missing = fleet("down", "--data-dir", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    empty = fleet("down", "--data-dir", str(tmp_path / "empty"))

    assert (missing.returncode, empty.returncode) == (5, 0)
    assert "nothing to end" in missing.stderr
