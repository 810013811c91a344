"""The agent's settings: command line before environment before defaults."""

from pathlib import Path

import pytest

from device.settings import EngineKind, Given, settings_from
from schemas.config import LogLevel
from schemas.errors import FleetError


def test_the_command_line_wins_over_the_environment_and_that_over_defaults() -> None:
    environment = {"FLEETLINE_ENGINE": "memory", "FLEETLINE_LOG_LEVEL": "debug", "FLEETLINE_NAME": "from-env"}

    settings = settings_from(Given(data_dir="/d", log_level="error"), environment)

    assert (settings.engine, settings.log_level, settings.name) == (
        EngineKind.MEMORY,
        LogLevel.ERROR,
        "from-env",
    )
    assert (settings.data_dir, settings.keepalive) == (Path("/d"), 30)


def test_labels_come_from_either_place() -> None:
    environment = {"FLEETLINE_LABELS": "site=lab, rack=3"}

    assert settings_from(Given(), environment).labels == {"site": "lab", "rack": "3"}
    assert settings_from(Given(label=["site=hall"]), environment).labels == {"site": "hall"}


def test_a_token_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("flt_secret\n")

    settings = settings_from(Given(token_file=str(tmp_path / "token")), {})

    assert settings.enrolment_token() == "flt_secret"
    assert "flt_secret" not in repr(settings_from(Given(token="flt_secret"), {}))


@pytest.mark.parametrize(
    "given", [Given(engine="steam"), Given(label=["x"]), Given(keepalive="soon"), Given(log_level="loud")]
)
def test_what_does_not_fit_is_refused_by_name(given: Given) -> None:
    with pytest.raises(FleetError):
        settings_from(given, {})


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="token file"):
        settings_from(Given(token_file=str(tmp_path / "none")), {}).enrolment_token()
