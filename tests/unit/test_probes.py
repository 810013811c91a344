"""Samples: exactly the catalogue's fields, of the catalogue's types."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from device.deploy.reports import KeeperState
from device.engine.behaviour import Behaviour
from device.engine.memory import MemoryEngine
from device.engine.protocol import Container, ContainerSpec, ContainerState, ContainerStats
from device.telemetry.batching import MAX_BYTES, batches, payload
from device.telemetry.probes import (
    AgentReading,
    MachineReading,
    agent_sample,
    device_sample,
    hottest,
    read_machine,
)
from device.telemetry.sampler import Sampler
from device.telemetry.services import cpu_percent, service_samples
from device.telemetry.spool import Spool
from schemas.catalogue import CATALOGUE
from schemas.desired import ServiceManifest
from schemas.reading import read
from schemas.reported import Health, ServiceReport, ServiceState
from schemas.telemetry import MAX_SAMPLES, Sample, TelemetryBatch

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
READING = MachineReading(
    cpu_busy=30.0,
    cpu_total=100.0,
    load_1m=0.5,
    load_5m=0.25,
    memory_used=250,
    memory_total=1000,
    disk_used=10,
    disk_total=100,
    disk_percent=10.5,
    net_received=7,
    net_sent=9,
    uptime=3600.0,
)
STATS = ContainerStats(
    at=NOON,
    cpu_seconds=10.0,
    memory_used_bytes=1000,
    memory_limit_bytes=2000,
    net_received_bytes=1,
    net_sent_bytes=2,
    block_read_bytes=3,
    block_written_bytes=4,
    pids=5,
)
CONTAINER = Container(
    id="c" * 64,
    name="fl-web",
    service="web",
    image="shop/web:1",
    image_id="",
    fingerprint="",
    generation=1,
    state=ContainerState.RUNNING,
)
REPORT = ServiceReport(name="web", state=ServiceState.RUNNING, health=Health.HEALTHY, restarts=2)


def check(sample: Sample) -> None:
    """Fail where *sample* is not what the catalogue says."""
    measurement = CATALOGUE[sample.measurement]
    assert set(sample.tags) == set(measurement.tags)
    for name, value in sample.fields.items():
        spec = measurement.field(name)
        assert spec is not None, name
        assert type(value) is spec.type, (name, value)


def names(measurement: str) -> set[str]:
    return {field.name for field in CATALOGUE[measurement].fields}


def test_a_device_sample_has_every_field_of_the_catalogue() -> None:
    later = dataclasses.replace(READING, cpu_busy=55.0, cpu_total=200.0, temperature=48.5)

    sample = device_sample(later, READING, NOON)

    check(sample)
    assert set(sample.fields) == names("device")
    assert (sample.fields["cpu_percent"], sample.fields["memory_percent"]) == (25.0, 25.0)


def test_what_cannot_be_known_is_left_out() -> None:
    sample = device_sample(READING, None, NOON)

    assert names("device") - set(sample.fields) == {"cpu_percent", "temperature_celsius"}


def test_only_plausible_sensors_of_the_processor_count() -> None:
    sensors = {"coretemp": [40.0, 55.0, 999.0], "nvme": [70.0], "acpitz": [90.0]}

    assert hottest(sensors) == 55.0
    assert hottest({"nvme": [70.0]}) is None


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    before = read_machine(tmp_path)
    after = read_machine(tmp_path)

    sample = device_sample(after, before, NOON)

    check(sample)
    assert names("device") - set(sample.fields) <= {"cpu_percent", "temperature_celsius"}
    assert 0 < after.memory_used < after.memory_total
    assert 0 < after.disk_used < after.disk_total


def test_an_agent_sample_has_every_field_of_the_catalogue() -> None:
    reading = AgentReading(
        rss=1, cpu_seconds=0.5, spool_batches=2, spool_dropped=3, reconnects=4, engine_calls=5
    )

    sample = agent_sample(reading, NOON)

    check(sample)
    assert set(sample.fields) == names("agent")


def test_a_service_sample_has_every_field_of_the_catalogue() -> None:
    before = dataclasses.replace(STATS, at=NOON - timedelta(seconds=10), cpu_seconds=5.0)

    [sample] = service_samples(
        [CONTAINER], [REPORT], stats={CONTAINER.id: STATS}, before={CONTAINER.id: before}, at=NOON
    )

    check(sample)
    assert set(sample.fields) == names("service")
    assert sample.tags == {"service": "web"}
    assert sample.fields["cpu_percent"] == 50.0


def test_a_service_without_a_container_is_still_told_of() -> None:
    [sample] = service_samples([], [REPORT], stats={}, before={}, at=NOON)

    check(sample)
    assert sample.fields == {"running": False, "health": "none", "restarts": 2}


@pytest.mark.parametrize(("seconds", "used"), [(0.0, 1.0), (-5.0, 1.0), (10.0, -1.0)])
def test_a_share_is_not_told_over_a_restart_or_a_clock_that_was_set(seconds: float, used: float) -> None:
    now = dataclasses.replace(
        STATS, at=NOON + timedelta(seconds=seconds), cpu_seconds=STATS.cpu_seconds + used
    )

    assert cpu_percent(now, STATS) is None
    assert cpu_percent(now, None) is None


async def test_a_round_covers_the_machine_the_agent_and_each_service(tmp_path: Path) -> None:
    clock = [NOON]
    engine = MemoryEngine(DEVICE, now=lambda: clock[0], behaviours={"a:1": Behaviour(present=True)})
    manifest = ServiceManifest(name="web", image="a:1")
    container = await engine.create(ContainerSpec(manifest, generation=1, release_id=DEVICE))
    await engine.start(container)
    spool = await Spool.open(tmp_path / "spool.db", now=NOON)
    sampler = Sampler(
        engine=engine,
        keeper=lambda: KeeperState(services=(REPORT,)),
        spool=spool,
        reconnects=lambda: 3,
        data_dir=tmp_path,
        now=lambda: clock[0],
        patience=0.1,
    )
    await sampler.prepare()
    clock[0] += timedelta(seconds=10)

    samples = await sampler.take()
    engine.world.go_down()
    without_engine = await sampler.take()
    engine.world.hang()
    beside_a_hanging_engine = await sampler.take()

    for sample in samples:
        check(sample)
    assert [each.measurement for each in samples] == ["device", "service", "agent"]
    assert samples[1].fields["cpu_percent"] == 1.0
    assert samples[2].fields["reconnects"] == 3
    assert [each.measurement for each in without_engine] == ["device", "agent"]
    assert [each.measurement for each in beside_a_hanging_engine] == ["device", "agent"]
    await spool.close()


def test_batches_keep_within_their_limits_and_lose_nothing() -> None:
    long = "x" * 900
    samples = [
        Sample(at=NOON, measurement="app", fields={"text": long, "n": n}) for n in range(MAX_SAMPLES + 10)
    ]

    parts = batches(samples)

    decoded = [Sample.model_validate(each) for part in parts for each in json.loads(part)]
    assert decoded == samples
    assert all(len(part) <= MAX_BYTES for part in parts)
    assert len(batches([Sample(at=NOON, measurement="app", fields={"n": 1})] * (MAX_SAMPLES + 1))) == 2
    assert batches([]) == []


def test_a_payload_is_a_telemetry_batch() -> None:
    samples = [device_sample(READING, None, NOON), agent_sample(AgentReading(1, 0.5, 2, 3, 4, 5), NOON)]
    boot = uuid4()

    [part] = batches(samples)
    batch = read(TelemetryBatch, payload(boot, 7, part, oldest=3, sent_at=NOON))

    assert batch == TelemetryBatch(boot=boot, seq=7, oldest=3, sent_at=NOON, samples=samples)
