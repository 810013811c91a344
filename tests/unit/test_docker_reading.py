"""What Docker's answers are read into."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from device.engine import docker_reading as reading
from device.engine.protocol import ContainerState, EngineEventKind
from schemas.reported import Health

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def facts(
    *, started: float | None = None, finished: float | None = None, code: int | None = None
) -> reading.Facts:
    def ago(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOON - timedelta(seconds=seconds)

    return reading.Facts(
        image="shop/web:1",
        running=finished is None,
        started_at=ago(started),
        finished_at=ago(finished),
        exit_code=code,
        oom_killed=False,
        memory_limit=None,
        address="172.18.0.2",
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "less than a second"),
        (1.2, "1 second"),
        (45, "45 seconds"),
        (61, "about a minute"),
        (150, "2 minutes"),
        (50 * 60, "50 minutes"),
        (3600, "about an hour"),
        (5 * 3600, "5 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages_are_told_as_the_engine_tells_them(seconds: float, words: str) -> None:
    assert reading.in_words(seconds) == words


@pytest.mark.parametrize(
    ("known", "status", "expected"),
    [
        (facts(started=125), "Up 2 minutes", True),
        (facts(started=125), "Up 2 minutes (healthy)", True),
        (facts(started=125), "Up 3 seconds", False),
        (facts(started=9), "Up 8 seconds (health: starting)", True),
        (facts(started=125), "Exited (0) 1 second ago", False),
        (facts(started=125, finished=30, code=3), "Exited (3) 30 seconds ago", True),
        (facts(started=125, finished=30, code=3), "Exited (137) 30 seconds ago", False),
        (facts(started=125, finished=30, code=3), "Up 30 seconds", False),
        (facts(), "Created", False),
        (facts(started=125), "Restarting (1) 2 seconds ago", False),
        (facts(started=125), "", False),
    ],
)
def test_what_is_known_holds_while_the_listing_agrees(
    *, known: reading.Facts, status: str, expected: bool
) -> None:
    assert reading.still_true(known, {"Status": status}, NOON) is expected


@pytest.mark.parametrize(
    ("memory", "used"),
    [
        ({"usage": 1000, "stats": {"total_inactive_file": 300}}, 700),
        ({"usage": 1000, "stats": {"inactive_file": 400}}, 600),
        ({"usage": 100, "stats": {"inactive_file": 400}}, 0),
        ({}, 0),
    ],
)
def test_page_cache_is_not_counted_on_either_version_of_control_groups(
    memory: dict[str, Any], used: int
) -> None:
    found = reading.stats(
        {"read": "2026-01-31T12:00:00.123456789Z", "memory_stats": memory}, facts(started=1)
    )

    assert found is not None
    assert found.memory_used_bytes == used


def test_counters_are_summed_over_networks_and_devices() -> None:
    raw = {
        "read": "2026-01-31T12:00:00Z",
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
        "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 5},
                {"op": "write", "value": 7},
                {"op": "Total", "value": 12},
            ]
        },
        "pids_stats": {"current": 4},
    }

    found = reading.stats(raw, facts(started=1))

    assert found is not None
    assert (found.at, found.cpu_seconds, found.pids) == (NOON, 2.5, 4)
    assert (found.net_received_bytes, found.net_sent_bytes) == (11, 22)
    assert (found.block_read_bytes, found.block_written_bytes) == (5, 7)


def test_no_reading_means_no_counters() -> None:
    assert reading.stats({"read": "0001-01-01T00:00:00Z"}, facts(started=1)) is None
    assert reading.stats({}, facts(started=1)) is None


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("start", EngineEventKind.STARTED),
        ("die", EngineEventKind.DIED),
        ("destroy", EngineEventKind.REMOVED),
        ("health_status: healthy", EngineEventKind.HEALTH),
        ("oom", EngineEventKind.OTHER),
    ],
)
def test_events_are_sorted_by_what_they_mean(action: str, kind: EngineEventKind) -> None:
    raw = {
        "Action": action,
        "Actor": {"ID": "abc", "Attributes": {"exitCode": "3", "io.fleetline.service": "web"}},
        "timeNano": int(NOON.timestamp() * 1e9),
    }

    event = reading.event(raw)

    assert (event.kind, event.at, event.container, event.service) == (kind, NOON, "abc", "web")
    assert event.exit_code == (3 if kind is EngineEventKind.DIED else None)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("busybox", ("busybox", "latest")),
        ("shop/web:1", ("shop/web", "1")),
        ("registry.example:5000/shop/web", ("registry.example:5000/shop/web", "latest")),
        ("registry.example:5000/shop/web:1.2", ("registry.example:5000/shop/web", "1.2")),
        ("shop/web:1@sha256:00ff", ("shop/web", "sha256:00ff")),
    ],
)
def test_an_image_name_is_split_for_a_pull(image: str, parts: tuple[str, str]) -> None:
    assert reading.split_image(image) == parts


def test_an_answer_without_its_fields_is_read_without_an_error() -> None:
    known = reading.facts({}, "fl-net")

    assert reading.container({}, known).id == ""
    assert reading.event({}).kind is EngineEventKind.OTHER
    assert reading.info({}).name == "docker"


def test_an_inspection_wins_over_a_listing_that_does_not_show_the_end_yet() -> None:
    listed = {"Id": "a", "State": "running", "Status": "Up 5 seconds (healthy)"}

    seen = reading.container(listed, facts(started=5, finished=0, code=137))

    assert (seen.state, seen.health) == (ContainerState.EXITED, Health.NONE)
