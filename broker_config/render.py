"""The files of a broker: made as text by `render`, put on disk by `write`."""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from broker_config.settings import Access, BrokerSettings, Grant, Identity

CONFIGURATION = "mosquitto.conf"
ACL = "acl"


def render(settings: BrokerSettings) -> Mapping[str, str]:
    """Return the text of each file by its name: `CONFIGURATION` and `ACL`."""
    return {CONFIGURATION: _configuration(settings), ACL: _acl(settings)}


def write(settings: BrokerSettings) -> Path:
    """Put the files in the ACL's directory, make the state directory, return the configuration's path.

    Each file is replaced in one step with mode 0640, so a running Mosquitto that is told to reload (SIGHUP)
    never reads half a file; the state directory gets mode 0700. The caller starts Mosquitto as *system_user*
    or as root.
    """
    directory = settings.acl.parent
    directory.mkdir(parents=True, exist_ok=True)
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    rendered = render(settings)
    _replace(settings.acl, rendered[ACL])
    configuration = directory / CONFIGURATION
    _replace(configuration, rendered[CONFIGURATION])
    return configuration


def _configuration(settings: BrokerSettings) -> str:
    limits = settings.limits
    plain = settings.plain_port
    return _template(CONFIGURATION).substitute(
        allow_anonymous="false" if plain is None else "true",
        acl=settings.acl,
        system_user=settings.system_user,
        state=settings.state,
        packet_bytes=limits.packet_bytes,
        inflight_messages=limits.inflight_messages,
        queued_messages=limits.queued_messages,
        queued_bytes=limits.queued_bytes,
        session_days=limits.session_days,
        log="stderr" if settings.log is None else f"file {settings.log}",
        bind=settings.bind,
        devices_port=settings.devices_port,
        services_port=settings.services_port,
        certificate=settings.certificate,
        key=settings.key,
        devices_anchor=settings.devices_anchor,
        services_anchor=settings.services_anchor,
        plain_listener="" if plain is None else _template("plain_listener.conf").substitute(plain_port=plain),
    )


def _acl(settings: BrokerSettings) -> str:
    everything = Grant(Access.READWRITE, f"{settings.topic_root}/#")
    return _template("acl.conf").substitute(
        anonymous="# There is no plain listener." if settings.plain_port is None else _line(everything),
        topic_root=settings.topic_root,
        identities="\n\n".join(_section(identity) for identity in settings.identities),
    )


def _section(identity: Identity) -> str:
    return "\n".join((f"user {identity.name}", *(_line(grant) for grant in identity.grants)))


def _line(grant: Grant) -> str:
    return f"topic {grant.access} {grant.topic}"


def _template(name: str) -> Template:
    return Template(files("broker_config.templates").joinpath(name).read_text(encoding="utf-8"))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
