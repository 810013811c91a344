"""How each kind of topic travels: QoS, retained or not, expiry, and the model it carries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel

from schemas import topics
from schemas.commands import CommandResult, LogChunk
from schemas.config import Config
from schemas.desired import Desired
from schemas.presence import Presence
from schemas.reported import DeviceEvent, Reported
from schemas.telemetry import TelemetryBatch, Watermark


@dataclass(frozen=True, slots=True)
class Delivery:
    """QoS, retention and expiry of one kind of topic. `model` is None where the payload has no fixed model.

    `expiry` None: the broker keeps a message until it is delivered. A command's
    own deadline sets its expiry.
    """

    model: type[BaseModel] | None
    retained: bool = False
    expiry: timedelta | None = None
    qos: int = 1


DELIVERY: dict[type[topics.Topic], Delivery] = {
    topics.Presence: Delivery(Presence, retained=True),
    topics.Telemetry: Delivery(TelemetryBatch),
    topics.Event: Delivery(DeviceEvent),
    topics.Alert: Delivery(None, retained=True),
    topics.Reported: Delivery(Reported, retained=True),
    topics.Result: Delivery(CommandResult, expiry=timedelta(hours=24)),
    topics.Chunk: Delivery(LogChunk, expiry=timedelta(hours=1)),
    topics.Desired: Delivery(Desired, retained=True),
    topics.Config: Delivery(Config, retained=True),
    topics.Command: Delivery(None),
    topics.Ack: Delivery(Watermark, expiry=timedelta(hours=1)),
}
