from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.app import check
from cloud.backoff import pause
from cloud.settings import PREFIX, Settings
from cloud.store.merge_patch import merged
from schemas.errors import FleetError


def test_the_environment_is_read_and_empty_variables_count_as_unset() -> None:
    settings = Settings.from_environment(
        {
            "FLEETLINE_MQTT_PORT": "1884",
            "FLEETLINE_DATA_DIR": "/data",
            "FLEETLINE_HTTP_PORT": "",
            "PATH": "/bin",
        }
    )

    assert (settings.mqtt_port, settings.http_port) == (1884, 8080)
    assert settings.pki == Path("/data/pki")
    assert settings.database == "sqlite:////data/fleet.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLEETLINE_MQTT_PORT", "0"),
        ("FLEETLINE_METRICS", "abacus"),
        ("FLEETLINE_TOPIC_ROOT", "a/#"),
        ("FLEETLINE_LOG_LEVEL", "loud"),
    ],
)
def test_a_value_that_does_not_fit_is_named(name: str, value: str) -> None:
    with pytest.raises(FleetError, match=name):
        Settings.from_environment({name: value})


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(FleetError, match="http_cert and http_key"):
        Settings.from_environment({"FLEETLINE_HTTP_CERT": "/cert.pem"})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"METRICS": "influx", "METRICS_URL": "hunter2@localhost"}, "METRICS_URL"),
        ({"METRICS": "influx", "METRICS_URL": "http://u:hunter2@localhost:port"}, "METRICS_URL"),
        ({"HTTP_CERT": "/nowhere.pem", "HTTP_KEY": "/nowhere.pem"}, "HTTP_CERT"),
        ({"MQTT_CA": "/nowhere.pem"}, "MQTT_CA"),
    ],
)
def test_settings_that_cannot_be_used_here_are_named(variables: dict[str, str], named: str) -> None:
    settings = Settings.from_environment({f"{PREFIX}{name}": value for name, value in variables.items()})

    with pytest.raises(FleetError, match=f"{PREFIX}{named}") as caught:
        check(settings)

    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_printed() -> None:
    settings = Settings.from_environment({"FLEETLINE_METRICS_TOKEN": "hunter2"})

    assert "hunter2" not in repr(settings)


@given(st.integers(1, 10_000), st.integers())
def test_pauses_are_bounded(failures: int, seed: int) -> None:
    assert 0 <= pause(failures, random=Random(seed), longest=10) <= 10


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_follow_the_examples_of_rfc_7396(target: object, patch: object, result: object) -> None:
    assert merged(target, patch) == result


def test_sql_forgets_samples_and_influxdb_keeps_its_own_rule() -> None:
    month, year = timedelta(days=30), timedelta(days=365)
    influx, days = {"FLEETLINE_METRICS": "influx"}, {"FLEETLINE_METRICS_DAYS": "365"}

    assert Settings.from_environment({}).metrics_retention == month
    assert Settings.from_environment(influx).metrics_retention is None
    assert Settings.from_environment(days).metrics_retention == year
    assert Settings.from_environment({**influx, **days}).metrics_retention == year
