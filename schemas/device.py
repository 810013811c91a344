"""What a device is: the facts it tells of itself, and how it enrols."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Document, Id, LabelKey, LabelValue, Message

Fact = Annotated[str, StringConstraints(max_length=200)]


class DeviceFacts(Message):
    """The machine and its software, as the agent found them. An empty text means not known."""

    hostname: Fact = ""
    model: Annotated[Fact, Field(examples=["Raspberry Pi 4 Model B Rev 1.4"])] = ""
    architecture: Annotated[Fact, Field(examples=["aarch64"])] = ""
    os: Annotated[Fact, Field(examples=["Debian GNU/Linux 12 (bookworm)"])] = ""
    kernel: Fact = ""
    cpu_count: Annotated[int, Field(ge=0)] = 0
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    engine: Annotated[Fact, Field(examples=["docker 27.3.1"])] = ""
    agent_version: Fact = ""


class EnrolmentRequest(Document):
    """A claim to a certificate: a one-time token and a PKCS#10 request whose CN is the device's id."""

    token: Annotated[str, StringConstraints(min_length=10, max_length=200)]
    csr: Annotated[str, StringConstraints(max_length=16_384), Field(description="PEM.")]
    name: Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=50)] = {}


class EnrolmentAnswer(Message):
    """What a device needs to connect."""

    device: Id
    certificate: Annotated[str, Field(description="PEM: the device's certificate, then its issuer's.")]
    ca: Annotated[str, Field(description="PEM: the root that servers' certificates end in.")]
    mqtt_host: str
    mqtt_port: int
    topic_root: str
