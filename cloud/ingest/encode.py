r"""From a sample to a point, and from a point to line protocol (pure).

Line protocol is InfluxDB's: `measurement,tag=value field=value nanoseconds`. A
backslash before a comma, an equals sign or a space makes it part of a name or a
tag's value; any other backslash stands for itself, so no name or tag's value can
end with one. Texts stand in double quotes, where `\"` and `\\` are escapes.
"""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

from cloud.metrics.checks import flaw
from cloud.metrics.protocol import DEVICE_TAG, END_OF_TIME, EPOCH, Point, Tags, Value, microseconds
from schemas.catalogue import CATALOGUE, FieldSpec
from schemas.errors import ErrorCode, Unreadable, problem, shown
from schemas.telemetry import Sample

_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_NAME = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})
_TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})


def point_of(device: UUID, sample: Sample) -> Point:
    """Return *sample* as a point of *device*.

    The device comes from the topic alone: a tag of that name becomes `exported_device`. Numbers take
    the type the catalogue gives their field; where a measurement has free fields, every number is a
    float, because a field's type is fixed by its first value and `5` may be followed by `5.5`.
    Raises `Unreadable` (`telemetry.bad_time`, `value.wrong_type`, `value.bad_character`).
    """
    if not EPOCH <= sample.at < END_OF_TIME:
        message = f"{sample.at.isoformat()} is not between {EPOCH.year} and {END_OF_TIME.year}"
        raise Unreadable(problem(ErrorCode.TELEMETRY_BAD_TIME, message, field="at"))
    measurement = CATALOGUE.get(sample.measurement)
    specs = {spec.name: spec for spec in measurement.fields} if measurement else {}
    fields = {
        name: _fitted(value, specs[name]) if name in specs else value if specs else _loose(value)
        for name, value in sample.fields.items()
    }
    point = Point(device, sample.measurement, _tags(sample.tags), fields, sample.at)
    if reason := flaw(point):
        raise Unreadable(problem(ErrorCode.VALUE_BAD_CHARACTER, f"{sample.measurement}: {reason}"))
    return point


def _tags(given: dict[str, str]) -> Tags:
    if DEVICE_TAG not in given:
        return tuple(sorted(given.items()))
    renamed = f"exported_{DEVICE_TAG}"
    while renamed in given:
        renamed = f"exported_{renamed}"
    return tuple(sorted((renamed if key == DEVICE_TAG else key, value) for key, value in given.items()))


def _fitted(value: Value, spec: FieldSpec) -> Value:
    match value:
        case bool() | str() if type(value) is spec.type:
            return value
        case int() | float() if spec.type is float and not isinstance(value, bool):
            return float(value)
        case int() | float() if spec.type is int and not isinstance(value, bool) and value == int(value):
            return int(value)
        case _:
            message = f"{spec.name} is of type {spec.type.__name__}; got {shown(value)}"
            raise Unreadable(problem(ErrorCode.VALUE_WRONG_TYPE, message, field=f"fields.{spec.name}"))


def _loose(value: Value) -> Value:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def line(point: Point) -> bytes:
    """Return *point* as one line, without its newline. What `flaw` finds fault with has no line."""
    fields = ",".join([f"{_name(key)}={_printed(value)}" for key, value in point.fields.items()])
    return (
        f"{_head(point.device, point.measurement, point.tags)} {fields} {microseconds(point.at)}000".encode()
    )


@lru_cache(maxsize=16_384)
def _head(device: UUID, measurement: str, tags: Tags) -> str:
    """Return the part of a line that stays the same for one series."""
    pairs = sorted((*tags, (DEVICE_TAG, str(device))))
    return measurement.translate(_MEASUREMENT) + "".join(
        f",{key.translate(_NAME)}={value.translate(_NAME)}" for key, value in pairs
    )


@lru_cache(maxsize=4_096)
def _name(key: str) -> str:
    return key.translate(_NAME)


def _printed(value: Value) -> str:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    return f'"{value.translate(_TEXT)}"'
