"""Samples, the batches they travel in, and the watermark that lets a device forget them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictFloat, StringConstraints

from schemas.base import Counter, Id, Message, UtcDatetime

MAX_SAMPLES = 1000
MAX_FIELDS = 64
MAX_TAGS = 16

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
"""Name of a measurement, tag or field."""
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
FieldText = Annotated[str, StringConstraints(max_length=1000, strict=True)]
FieldInteger = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)]
FieldValue = Annotated[StrictBool | FieldInteger | StrictFloat | FieldText, Field(union_mode="left_to_right")]
"""A bool, a 64-bit integer, a finite float or a short text, told apart by their type, never converted."""


class Sample(Message):
    """Readings taken at one moment of one thing: `measurement` plus `tags` says which."""

    at: UtcDatetime
    measurement: Identifier
    tags: Annotated[dict[Identifier, TagValue], Field(max_length=MAX_TAGS)] = {}
    fields: Annotated[dict[Identifier, FieldValue], Field(min_length=1, max_length=MAX_FIELDS)]


class TelemetryBatch(Message):
    """Samples on their way up. `(boot, seq)` numbers batches without a gap within one spool's life."""

    boot: Annotated[Id, Field(description="Made when the device's spool is made; a new one restarts `seq`.")]
    seq: Annotated[Counter, Field(ge=1)]
    oldest: Annotated[
        Counter | None,
        Field(description="Lowest `seq` still in the spool: what is below and was not stored is lost."),
    ] = None
    sent_at: UtcDatetime
    samples: Annotated[list[Sample], Field(min_length=1, max_length=MAX_SAMPLES)]


class Watermark(Message):
    """Every batch of `boot` up to and including `seq` is in the database."""

    boot: Id
    seq: Counter
