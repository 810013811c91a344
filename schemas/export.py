"""The contract as files: JSON Schemas and an AsyncAPI 3 document, made from the models.

Pure: `documents()` returns file names and texts; `drift` compares them with a
folder. The `fleet schemas export` command writes them to docs/api/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas import topics
from schemas.commands import ARGUMENTS, Command, CommandResult, Envelope, LogChunk
from schemas.config import Config
from schemas.delivery import DELIVERY, Delivery
from schemas.desired import DeploymentConfig, Desired, Release, ServiceManifest
from schemas.device import DeviceFacts, EnrolmentAnswer, EnrolmentRequest
from schemas.errors import Problem
from schemas.presence import Presence
from schemas.reported import DeviceEvent, Reported
from schemas.telemetry import TelemetryBatch, Watermark

_REFERENCE = "#/components/schemas/{model}"

MODELS: tuple[type[BaseModel], ...] = (
    Presence,
    TelemetryBatch,
    Watermark,
    DeviceEvent,
    Reported,
    CommandResult,
    LogChunk,
    Desired,
    Config,
    Release,
    ServiceManifest,
    DeploymentConfig,
    Command,
    DeviceFacts,
    EnrolmentRequest,
    EnrolmentAnswer,
    Problem,
    Envelope,
    *ARGUMENTS.values(),
)

_WORDS = {
    "device": "The device's id: a UUID4, equal to its certificate's CN and its MQTT client id.",
    "stream": "Name of a telemetry stream.",
    "kind": "Kind of event.",
    "rule": "Name of an alert rule.",
    "command": "Name of a command.",
    "id": "The command's id: a UUID4 its sender made.",
    "transfer": "Id of a transfer: the command that asked for it.",
}


def documents() -> Mapping[str, str]:
    """Return every generated file: its path below docs/api/ and its text."""
    files = {f"schemas/{model.__name__}.json": _print(_schema(model)) for model in MODELS}
    return {"asyncapi.json": _print(asyncapi()), **files}


def drift(directory: Path) -> list[str]:
    """Return the names of files in *directory* that differ from `documents()`, are missing or left over."""
    wanted = documents()
    found = {
        path.relative_to(directory).as_posix(): path.read_text("utf-8")
        for path in (*directory.glob("asyncapi.json"), *directory.glob("schemas/*.json"))
    }
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(directory: Path) -> list[str]:
    """Make *directory* hold `documents()`; return the names of the files that changed."""
    changed = drift(directory)
    wanted = documents()
    for name in changed:
        path = directory / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
    return changed


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document: a channel per kind of topic, seen from the device."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template=_REFERENCE, title=None
    )
    kinds = [kind for kind in DELIVERY if kind is not topics.Command]
    channels = {kind.__name__.lower(): _channel(kind, DELIVERY[kind]) for kind in kinds}
    channels |= {f"command-{name}": _command_channel(name, model) for name, model in ARGUMENTS.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fleetline",
            "version": "1",
            "description": "What devices and the cloud say to each other over MQTT 5. Payloads are JSON of"
            " at most 256 KiB. The root `fleet/v1` can be configured.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {name: _operation(name, channel["address"]) for name, channel in channels.items()},
        "components": {"schemas": definitions["$defs"]},
    }


def _channel(kind: type[topics.Topic], delivery: Delivery) -> dict[str, Any]:
    address, summary = _address(kind)
    name = delivery.model.__name__ if delivery.model else "Anything"
    payload = {"$ref": f"#/components/schemas/{name}"} if delivery.model else {"type": "object"}
    return _one_message(address, summary, name=name, payload=payload, delivery=delivery)


def _command_channel(name: str, model: type[BaseModel]) -> dict[str, Any]:
    address, _ = _address(topics.Command)
    payload = {
        "description": "The command's arguments, and the envelope's fields beside them if the sender likes.",
        "type": "object",
        "properties": {
            **_inline(model).get("properties", {}),
            **_inline(Envelope)["properties"],
        },
        "required": _inline(model).get("required", []),
        "additionalProperties": False,
    }
    return _one_message(
        address.replace("{command}", name),
        (model.__doc__ or "").strip(),
        name=model.__name__,
        payload=payload,
        delivery=DELIVERY[topics.Command],
    )


def _one_message(
    address: str, summary: str, *, name: str, payload: dict[str, Any], delivery: Delivery
) -> dict[str, Any]:
    words = re.findall(r"\{(\w+)\}", address)
    expiry = int(delivery.expiry.total_seconds()) if delivery.expiry else None
    return {
        "address": address,
        "description": summary,
        "parameters": {word: {"description": _WORDS[word]} for word in words},
        "messages": {name: {"name": name, "payload": payload}},
        "x-mqtt": {"qos": delivery.qos, "retain": delivery.retained, "messageExpiryInterval": expiry},
    }


def _operation(channel: str, address: str) -> dict[str, Any]:
    action = "send" if "/up/" in address else "receive"
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _address(kind: type[topics.Topic]) -> tuple[str, str]:
    """Return the address and summary that the topic class's docstring gives."""
    tail, _, summary = (kind.__doc__ or "").replace("\n", " ").partition("`: ")
    return f"{topics.DEFAULT_ROOT}/{{device}}/{tail.strip('` ')}", " ".join(summary.split())


def _inline(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def _print(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
