"""One device that names a new thing each time is bounded, and nobody else is."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from cloud.ingest.series import Breadth
from cloud.metrics.protocol import Point

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")


def a_point(device: UUID = DEVICE, tag: str = "a", field: str = "value") -> Point:
    return Point(device, "app", (("shard", tag),), {field: 1.0}, NOON)


def test_a_series_too_many_is_refused_and_those_known_go_on() -> None:
    breadth = Breadth(limit=3)
    points = [a_point(tag=str(number)) for number in range(5)]

    assert list(breadth.beyond(points)) == [id(point) for point in points[3:]]
    assert breadth.beyond(points[:3]) == {}


def test_a_field_too_many_is_refused() -> None:
    breadth = Breadth(limit=3)
    points = [a_point(field=f"f{number}") for number in range(4)]

    (reason,) = breadth.beyond(points).values()

    assert "fields" in reason


def test_one_devices_names_leave_the_others_untouched() -> None:
    breadth = Breadth(limit=3)
    breadth.beyond([a_point(tag=str(number)) for number in range(9)])

    assert breadth.beyond([a_point(uuid4(), tag="new")]) == {}


def test_what_is_remembered_is_bounded() -> None:
    breadth = Breadth(limit=10, remembered=20)
    for _ in range(100):
        breadth.beyond([a_point(uuid4())])

    assert sum(map(len, breadth._series.values())) <= 20
