"""What encoder and quoting print, as the real InfluxDB understands it."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.ingest.encode import line
from cloud.metrics.influx import InfluxMetrics, InfluxSettings
from cloud.metrics.influxql import quoted
from cloud.metrics.protocol import END_OF_TIME, EPOCH, Point, Query
from tests.servers.influx import Influx

TEXTS = st.text(
    st.sampled_from(" ,=\\\"'\n\t#$%{};-é☃𝄞")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    max_size=30,
)
TAGS = (
    st.text(
        st.sampled_from(" ,=\\\"'#$%{};é☃𝄞a") | st.characters(exclude_categories=["Cs", "Cc"]),
        min_size=1,
        max_size=30,
    )
    .map(lambda text: text.rstrip("\\"))
    .filter(bool)
)
NAMES = st.text(
    st.sampled_from(" ,=\\\"'#$%{};.é☃𝄞a") | st.characters(exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=30,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(TAGS, TEXTS, FLOATS, INTEGERS, st.booleans()), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_is_what_influxdb_keeps(
    influx: Influx, rows: list[tuple[str, str, float, int, bool]]
) -> None:
    points = [
        Point(
            uuid4(),
            "junk",
            (("tag", tag),),
            {"text": text, "float": real, "integer": integer, "flag": flag},
            EPOCH + timedelta(microseconds=number),
        )
        for number, (tag, text, real, integer, flag) in enumerate(rows)
    ]

    async def there_and_back() -> dict[object, dict[str, object]]:
        metrics = InfluxMetrics(InfluxSettings(influx.url, database="junk"))
        await metrics.prepare()
        await metrics.write(points)
        devices = tuple(point.device for point in points)
        found: dict[object, dict[str, object]] = {}
        for series in await metrics.query(Query("junk", EPOCH, END_OF_TIME, devices=devices)):
            ((at, value),) = series.points
            found.setdefault((series.device, series.tags, at), {})[series.field] = value
        await metrics.close()
        return found

    found = asyncio.run(there_and_back())

    assert found == {(point.device, point.tags, point.at): dict(point.fields) for point in points}


@pytest.fixture(scope="module")
def empty_database(influx: Influx) -> str:
    return influx.create_database()


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_quoted_name_is_one_name_whatever_it_holds(
    influx: Influx, empty_database: str, names: list[str]
) -> None:
    """Read with the name in every place; a name that broke out would be an error or another column."""
    with httpx.Client(base_url=influx.url, params={"db": empty_database}) as client:
        for name in names:
            word = quoted(name)
            text = f"SELECT {word} FROM {word} WHERE {word} = $x GROUP BY {word}"
            answer = client.post("/query", data={"q": text, "params": '{"x": "y"}'})
            assert answer.json() == {"results": [{"statement_id": 0}]}, text


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a b", "a,b", "a=b", "'", "☃", "$x", "select", "a.b", "\\\\x", "\\n", 'x" y']
)
def test_a_field_with_any_name_is_found_by_it(influx: Influx, name: str) -> None:
    database = influx.create_database()
    point = Point(uuid4(), name, (), {name: 1.0}, EPOCH)
    httpx.post(f"{influx.url}/write", params={"db": database}, content=line(point)).raise_for_status()

    answer = httpx.post(
        f"{influx.url}/query",
        params={"db": database, "epoch": "ns"},
        data={"q": f"SELECT {quoted(name)} FROM {quoted(name)}"},
    ).json()

    (series,) = answer["results"][0]["series"]
    assert series == {"name": name, "columns": ["time", name], "values": [[0, 1]]}


@pytest.mark.parametrize("name", ["", "a\x00", "a\nb", "\r", "\t", "\x7f"])
def test_a_name_without_a_form_cannot_be_quoted(name: str) -> None:
    with pytest.raises(ValueError, match="no form"):
        quoted(name)
