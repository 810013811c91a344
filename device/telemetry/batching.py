"""Samples into batches and batches into payloads, within the limits of one message (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from schemas.base import print_time, to_wire
from schemas.telemetry import MAX_SAMPLES, Sample

MAX_BYTES = 200 * 1024
"""Bytes of samples in one batch; leaves room below the limit of one message."""


def batches(samples: Iterable[Sample]) -> list[bytes]:
    """Return *samples* as JSON arrays, each short enough for one batch, in order."""
    done: list[bytes] = []
    current: list[bytes] = []
    size = 0
    for each in samples:
        raw = to_wire(each)
        if current and (len(current) == MAX_SAMPLES or size + len(raw) + 1 > MAX_BYTES):
            done.append(_array(current))
            current, size = [], 0
        current.append(raw)
        size += len(raw) + 1
    return [*done, _array(current)] if current else done


def payload(boot: UUID, seq: int, samples: bytes, *, oldest: int, sent_at: datetime) -> bytes:
    """Return a `TelemetryBatch` as it travels, around samples that are JSON already."""
    head = json.dumps({"boot": str(boot), "seq": seq, "oldest": oldest, "sent_at": print_time(sent_at)})
    return b'%b,"samples":%b}' % (head[:-1].encode(), samples)


def _array(parts: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(parts)
