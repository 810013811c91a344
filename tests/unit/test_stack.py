"""The local stack: ports, pauses, finding and ending processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.stack.detach import start
from cloud.stack.layout import HOST, Layout, MetricsKind, StackSettings, save
from cloud.stack.ports import PortTaken, choose
from cloud.stack.processes import MARK, end_all, last_words, members, pause_before
from cloud.stack.progress import StackFailed

ANY = StackSettings(http_port=0, mqtt_port=0, device_mqtt_port=0)


def test_port_zero_becomes_any_free_port_and_no_two_are_alike() -> None:
    chosen = choose(ANY.model_copy(update={"metrics": MetricsKind.INFLUX}), None)

    ports = [chosen.http_port, chosen.mqtt_port, chosen.device_mqtt_port, chosen.influx_port]
    assert 0 not in ports
    assert len(set(ports)) == len(ports)


def test_a_restarted_stack_keeps_its_ports() -> None:
    first = choose(ANY, None)

    assert choose(ANY, first) == first


def test_a_port_of_the_last_start_that_somebody_took_is_not_used() -> None:
    first = choose(ANY, None)
    with socket.socket() as other:
        other.bind((HOST, first.http_port))
        other.listen()

        assert choose(ANY, first).http_port != first.http_port


def test_a_port_asked_for_by_number_that_is_taken_is_refused_with_the_option_to_change() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]

        with pytest.raises(PortTaken, match=rf"port {taken} is in use; give --http-port"):
            choose(ANY.model_copy(update={"http_port": taken}), None)


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [pause_before(failures) for failures in range(1, 20)]

    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 10


def test_every_process_of_a_stack_is_found_and_ended_even_one_that_ignores_a_polite_end(
    tmp_path: Path,
) -> None:
    stubborn = "from signal import *; signal(SIGTERM, SIG_IGN); print('up', flush=True); pause()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", stubborn],
            env={**os.environ, MARK: str(directory)},
            stdout=subprocess.PIPE,
        )
        for directory in (tmp_path / "ours", tmp_path / "another")
    ]
    try:
        for each in processes:
            assert each.stdout is not None
            each.stdout.readline()
        found = members(tmp_path / "ours")
        assert [each.pid for each in found] == [processes[0].pid]

        end_all(found, grace=0.2)

        assert not found[0].is_running()
        assert processes[1].poll() is None
    finally:
        for each in processes:
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


def test_last_words_are_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("\n".join(f"line {number}" for number in range(10_000)))

    words = last_words(log, lines=3)

    assert words.splitlines() == ["line 9997", "line 9998", "line 9999"]
    assert last_words(tmp_path / "none.log") == "(no log)"


def test_settings_survive_a_round_trip_through_their_file_and_are_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.read_settings() is None

    save(layout.settings, ANY)

    assert layout.read_settings() == ANY
    assert layout.settings.stat().st_mode & 0o077 == 0


def test_one_number_for_two_ports_is_refused() -> None:
    free = choose(ANY, None).http_port

    with pytest.raises(PortTaken, match=rf"port {free} is asked for twice; give --mqtt-port"):
        choose(ANY.model_copy(update={"http_port": free, "mqtt_port": free}), None)


def test_a_stack_does_not_settle_among_other_things(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear", "utf-8")

    with pytest.raises(StackFailed, match="holds other things; choose a new --data-dir"):
        start(tmp_path, ANY, print)

    assert [each.name for each in tmp_path.iterdir()] == ["letter"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackFailed, match=r"file.*choose another --data-dir"):
        start(tmp_path / "file" / "stack", ANY, print)


def test_removing_a_stack_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "stack")
    layout.make()
    save(layout.settings, ANY)
    (layout.directory / "notes").touch()

    layout.remove()

    assert [each.name for each in layout.directory.iterdir()] == ["notes"]


def test_a_removed_stack_leaves_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "stack")
    layout.make()

    layout.remove()

    assert not layout.directory.exists()


def test_one_directory_is_one_stack_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert Layout(tmp_path / "link").directory == Layout(tmp_path / "real" / ".." / "real").directory


def test_a_local_device_follows_the_broker_to_its_new_port_and_keeps_its_identity(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (layout.device(1) / "identity").mkdir(parents=True)
    (layout.device(1) / "identity" / "device.json").write_text('{"device": "d", "mqtt_port": 1}', "utf-8")

    layout.lead_device(1, {"mqtt_port": 2})
    layout.lead_device(2, {"mqtt_port": 2})

    assert json.loads((layout.device(1) / "identity" / "device.json").read_bytes()) == {
        "device": "d",
        "mqtt_port": 2,
    }
    assert (layout.device_id(1), layout.device_id(2)) == ("d", None)


def test_a_damaged_settings_file_counts_as_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.settings.write_text("{", "utf-8")

    assert layout.read_settings() is None
