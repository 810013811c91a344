"""What a fleet's broker is told, checked when it is made: a value that exists can be rendered.

Names and topics end up in files that Mosquitto reads line by line and in topic patterns, so a line break, a
slash or a wildcard in the wrong place would quietly widen somebody's rights. All such values raise
UnsafeSettings here.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from uuid import UUID

_LOOPBACK = IPv4Address("127.0.0.1")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_LEVEL = re.compile(r"[A-Za-z0-9._~-]+")
_SYSTEM_USER = re.compile(r"[a-z_][a-z0-9_.-]*\$?", re.IGNORECASE)


class UnsafeSettings(ValueError):  # noqa: N818 - names the settings, as in "these are unsafe settings"
    """A value that would break the broker's files or widen rights; says which and why."""


class Access(StrEnum):
    """What a grant allows; the words of Mosquitto's ACL file."""

    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to read or write what matches one topic filter."""

    access: Access
    topic: str

    def __post_init__(self) -> None:
        levels = self.topic.split("/")
        if levels[0].startswith("$") and levels[0] != "$SYS":
            raise UnsafeSettings(f"grant on {self.topic!r}: the broker keeps {levels[0]!r} for itself")
        plain = levels[1:] if levels[0] == "$SYS" else levels
        if plain and plain[-1] == "#":
            plain = plain[:-1]
        for level in plain:
            if level != "+" and _LEVEL.fullmatch(level) is None:
                raise UnsafeSettings(
                    f"grant on {self.topic!r}: a level is + or letters, digits and . _ ~ -, "
                    f"and # stands alone at the end; got {level!r}"
                )


@dataclass(frozen=True, slots=True)
class Identity:
    """A service, integration or person, named by the CN of its certificate, and what it may do."""

    name: str
    grants: tuple[Grant, ...]

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise UnsafeSettings(
                f"identity {self.name!r}: use 1 to 64 of a-z 0-9 . _ -; "
                "a slash or wildcard would reach into other topics"
            )
        if _is_uuid(self.name):
            raise UnsafeSettings(f"identity {self.name!r}: that is a device id, whose rights are fixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the broker takes and keeps; `docs/broker.md` gives the reason for each."""

    packet_bytes: int = 264 * 1024
    inflight_messages: int = 1000
    queued_messages: int = 200_000
    queued_bytes: int = 256 * 1024 * 1024
    session_days: int = 14

    def __post_init__(self) -> None:
        if min(self.packet_bytes, self.inflight_messages, self.queued_messages, self.session_days) < 1:
            raise UnsafeSettings("limits: each must be at least 1; Mosquitto reads 0 as no limit")
        if self.queued_bytes < self.packet_bytes:
            raise UnsafeSettings("limits: a queue holds at least one packet, so queued_bytes >= packet_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Everything that differs from one broker to the next.

    Paths are absolute. *devices_anchor* and *services_anchor* are the self-signed certificates the two TLS
    listeners trust; *certificate* is the broker's own chain, leaf first. *system_user* is whom Mosquitto
    becomes when root starts it; it must be able to read these files and write *state*. *log* None means
    standard error. *plain_port* None means no listener without TLS.
    """

    certificate: Path
    key: Path
    devices_anchor: Path
    services_anchor: Path
    state: Path
    acl: Path
    system_user: str
    bind: IPv4Address | IPv6Address = _LOOPBACK
    devices_port: int = 8883
    services_port: int = 8884
    plain_port: int | None = None
    topic_root: str = "fleet/v1"
    cloud: str = "fleet-cloud"
    operator: str = "operator"
    others: tuple[Identity, ...] = ()
    limits: Limits = Limits()
    log: Path | None = None

    def __post_init__(self) -> None:
        self._check_paths()
        self._check_ports()
        for level in self.topic_root.split("/"):
            if _LEVEL.fullmatch(level) is None:
                raise UnsafeSettings(
                    f"topic_root {self.topic_root!r}: levels are letters, digits and . _ ~ -, got {level!r}"
                )
        if _SYSTEM_USER.fullmatch(self.system_user) is None:
            raise UnsafeSettings(f"system_user {self.system_user!r} is not a user name")
        names = [identity.name for identity in self.identities]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UnsafeSettings(f"identity {twice[0]!r} is given twice; put all its grants in one")

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Everyone with a name of their own, the cloud first."""
        root = self.topic_root
        cloud = (Grant(Access.READWRITE, f"{root}/#"), Grant(Access.READ, "$SYS/broker/#"))
        operator = (
            Grant(Access.READ, f"{root}/+/up/#"),
            Grant(Access.READWRITE, f"{root}/+/down/command/#"),
        )
        return (Identity(self.cloud, cloud), Identity(self.operator, operator), *self.others)

    def _check_paths(self) -> None:
        needed = (
            self.certificate,
            self.key,
            self.devices_anchor,
            self.services_anchor,
            self.state,
            self.acl,
        )
        for path in needed if self.log is None else (*needed, self.log):
            if not path.is_absolute() or not str(path).isprintable():
                raise UnsafeSettings(f"path {str(path)!r}: give an absolute path of printable characters")

    def _check_ports(self) -> None:
        ports = [self.devices_port, self.services_port]
        if self.plain_port is not None:
            ports.append(self.plain_port)
        for port in ports:
            if port not in range(1, 65536):
                raise UnsafeSettings(f"port {port}: Mosquitto needs a number from 1 to 65535")
        if len(set(ports)) != len(ports):
            raise UnsafeSettings(f"ports {ports}: every listener needs its own")


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
