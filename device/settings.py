"""The agent's own settings: command line, else environment (`FLEETLINE_*`), else default."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from schemas.config import LogLevel
from schemas.errors import ErrorCode, refuse

PREFIX = "FLEETLINE_"

_Choice = TypeVar("_Choice", bound=StrEnum)


class EngineKind(StrEnum):
    """What containers run on. `memory` runs none: it behaves like an engine, for trials and tests."""

    DOCKER = "docker"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """Settings of one agent. Not printed: the token is a secret."""

    data_dir: Path
    engine: EngineKind = EngineKind.DOCKER
    enrol_url: str | None = None
    token: str | None = None
    token_file: Path | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    log_level: LogLevel = LogLevel.INFO
    keepalive: int = 30

    def enrolment_token(self) -> str | None:
        """Return the token, read from its file if one was named. Raises `FleetError`."""
        if self.token is not None or self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            refuse(ErrorCode.CLAIM_UNKNOWN, f"the token file cannot be read: {error}")


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """What stood on the command line; None where nothing did."""

    data_dir: str | None = None
    engine: str | None = None
    enrol_url: str | None = None
    token: str | None = None
    token_file: str | None = None
    name: str | None = None
    label: Sequence[str] | None = None
    ca_file: str | None = None
    log_level: str | None = None
    keepalive: str | None = None


def settings_from(given: Given, environment: Mapping[str, str]) -> Settings:
    """Return the settings; the command line wins over the environment. Raises `FleetError`."""

    def pick(name: str, default: str | None = None) -> str | None:
        stated: str | None = getattr(given, name)
        return stated if stated is not None else environment.get(f"{PREFIX}{name.upper()}", default)

    labels = given.label if given.label is not None else _split(environment.get(f"{PREFIX}LABELS", ""))
    return Settings(
        data_dir=Path(pick("data_dir") or default_data_dir(environment)).expanduser().absolute(),
        engine=_one_of(EngineKind, pick("engine", EngineKind.DOCKER), "engine"),
        enrol_url=pick("enrol_url"),
        token=pick("token"),
        token_file=_path(pick("token_file")),
        name=pick("name") or platform.node()[:100],
        labels=dict(_label(each) for each in labels),
        ca_file=_path(pick("ca_file")),
        log_level=_one_of(LogLevel, pick("log_level", LogLevel.INFO), "log level"),
        keepalive=_seconds(pick("keepalive", "30")),
    )


def default_data_dir(environment: Mapping[str, str]) -> str:
    """Return where the agent keeps its files if nobody says: the system's place for root, the user's else."""
    if os.geteuid() == 0:
        return "/var/lib/fleetline"
    return f"{environment.get('XDG_STATE_HOME') or '~/.local/state'}/fleetline"


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        refuse(ErrorCode.VALUE_WRONG_TYPE, f"label {text!r} is not of the form key=value")
    return key, value


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser().absolute()


def _seconds(text: str | None) -> int:
    if text is None or not text.isdecimal() or not 5 <= int(text) <= 3600:  # noqa: PLR2004 - sane seconds
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, f"keepalive {text!r}: use 5 to 3600 seconds")
    return int(text)


def _one_of(kind: type[_Choice], text: str | None, what: str) -> _Choice:
    try:
        return kind(text or "")
    except ValueError:
        known = ", ".join(kind)
        refuse(ErrorCode.VALUE_OUT_OF_RANGE, f"there is no {what} {text!r}; use one of {known}")
