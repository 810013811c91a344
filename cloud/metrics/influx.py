"""Samples in InfluxDB 1.x, 2.x and 3.x: the only module that speaks to it.

Written as line protocol (`/write` on 1.x, `/api/v2/write` since), read by InfluxQL
over `/query`, which all three have. `influxdb-client` makes the bucket of a 2.x and
nothing else: its background writer loses everything in silence when the bucket is gone.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import httpx

from cloud.ingest.encode import line
from cloud.metrics import influxql
from cloud.metrics.checks import check_name, check_query, fields_asked, flaw, too_wide
from cloud.metrics.influxql import Answer, Statement
from cloud.metrics.protocol import (
    Kind,
    Latest,
    MetricsHealth,
    PartialWrite,
    Point,
    Query,
    RefusedPoint,
    Series,
)
from schemas.errors import ErrorCode, FleetError, problem, refuse, shown

LINES_AT_ONCE = 5000
COMPRESSED_ABOVE = 1024
_SHARD_HOURS = ((timedelta(days=2), 1), (timedelta(days=180), 24), (timedelta.max, 168))
_DROPPED = re.compile(r"partial write: .*dropped=(\d+)")


class Generation(StrEnum):
    """Which InfluxDB answers; `AUTO` asks it."""

    AUTO = "auto"
    V1 = "1"
    V2 = "2"
    V3 = "3"


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """Where InfluxDB is and how to get in: user and password on 1.x, organisation and token since.

    `database` is the bucket on 2.x. `retention` None leaves it as it is (for ever, where we make it).
    """

    url: str
    database: str = "fleet"
    username: str = ""
    password: str = field(default="", repr=False)
    org: str = ""
    token: str = field(default="", repr=False)
    retention: timedelta | None = None
    generation: Generation = Generation.AUTO
    timeout: float = 20


class InfluxMetrics:
    """`Metrics` over HTTP."""

    def __init__(self, settings: InfluxSettings) -> None:
        """Take the settings; nothing is sent before the first call."""
        self._settings = settings
        self._url = str(httpx.URL(settings.url).copy_with(userinfo=b""))
        self._generation = settings.generation
        basic = httpx.BasicAuth(settings.username, settings.password) if settings.username else None
        self._client = httpx.AsyncClient(
            base_url=settings.url,
            auth=None if settings.token else basic,
            headers={"Authorization": f"Token {settings.token}"} if settings.token else {},
            timeout=httpx.Timeout(settings.timeout, connect=min(5, settings.timeout)),
            trust_env=False,
        )

    async def prepare(self) -> None:
        """Create the database or bucket, and what InfluxQL needs to find it."""
        match await self._which():
            case Generation.V2:
                await asyncio.to_thread(self._make_bucket)
            case Generation.V3:
                body = {"db": self._settings.database}
                response = await self._send("POST", "/api/v3/configure/database", json=body)
                if response.status_code != httpx.codes.CONFLICT:
                    self._raise_for(response)
            case _:
                await self._make_database()

    async def write(self, points: Sequence[Point]) -> None:
        """Store *points*; whoever InfluxDB refuses is found by halving, and everyone else is stored."""
        reasons = {index: reason for index, point in enumerate(points) if (reason := flaw(point))}
        lines = [(index, line(point)) for index, point in enumerate(points) if index not in reasons]
        for start in range(0, len(lines), LINES_AT_ONCE):
            reasons |= await self._store(lines[start : start + LINES_AT_ONCE])
        if reasons:
            raise PartialWrite([RefusedPoint(points[index], why) for index, why in sorted(reasons.items())])

    async def query(self, query: Query) -> list[Series]:
        """Return what *query* asks for; reading stops as soon as the limit is passed."""
        asked = check_query(query)
        kinds = await self._kinds(asked.measurement)
        fields = fields_asked(asked, kinds)
        answer = Answer(asked, fields, kinds)
        if not fields or asked.tags.keys() & kinds.keys():
            return []
        for statement in influxql.selects(asked, fields):
            async for piece in self._ask(statement):
                answer.add(piece)
                if answer.points > asked.limit:
                    too_wide(asked)
        return answer.series()

    async def latest(self, device: UUID, measurement: str, *, since: datetime | None = None) -> list[Latest]:
        """Return the newest point of each series of *device*."""
        check_name(measurement)
        kinds = await self._kinds(measurement)
        statement = influxql.newest(device, measurement, since)
        rows = [influxql.read_newest(piece, kinds) async for piece in self._ask(statement)]
        return sorted((row for row in rows if row is not None), key=lambda each: each.tags)

    async def check(self) -> MetricsHealth:
        """Ask for the version and for the database."""
        version = ""
        try:
            version = await self._version()
            await self._kinds("device")
        except FleetError as error:
            return MetricsHealth("influxdb", version, error.problem)
        return MetricsHealth("influxdb", version)

    async def prune(self, now: datetime) -> int:  # noqa: ARG002 - the protocol's
        """Do nothing: InfluxDB deletes by its own retention."""
        return 0

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _store(self, lines: Sequence[tuple[int, bytes]]) -> dict[int, str]:
        """Post *lines* until all are stored but those refused for good; return these with their reasons."""
        response = await self._post([text for _, text in lines])
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        reason = _reason(response)
        if response.is_success:
            message = f"{self._url} answered a write with {response.status_code}, which InfluxDB never does"
            refuse(ErrorCode.METRICS_REFUSED, f"{message}; check the URL of the metrics")
        refused = response.status_code in {httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY}
        if not refused and response.status_code != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            self._raise_for(response)
        dropped = _DROPPED.search(reason)
        if len(lines) == 1 or (dropped and int(dropped[1]) == len(lines)):
            return {index: reason for index, _ in lines}
        half = len(lines) // 2
        return await self._store(lines[:half]) | await self._store(lines[half:])

    async def _post(self, lines: Sequence[bytes]) -> httpx.Response:
        body, headers = b"\n".join(lines), {"Content-Type": "text/plain; charset=utf-8"}
        if len(body) > COMPRESSED_ABOVE:
            body, headers["Content-Encoding"] = await asyncio.to_thread(gzip.compress, body, 1), "gzip"
        if await self._which() is Generation.V1:
            path, names = "/write", {"db": self._settings.database}
        else:
            path, names = "/api/v2/write", {"org": self._settings.org, "bucket": self._settings.database}
        return await self._send(
            "POST", path, params={**names, "precision": "ns"}, content=body, headers=headers
        )

    async def _kinds(self, measurement: str) -> dict[str, frozenset[Kind]]:
        return influxql.read_kinds([piece async for piece in self._ask(influxql.field_keys(measurement))])

    async def _ask(self, statement: Statement, **more: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the pieces of the answer to *statement* as they come."""
        params = {"db": self._settings.database, "epoch": "ns", "chunked": "true", "chunk_size": "5000"}
        form = {"q": statement.text, "params": statement.params}
        try:
            async with self._client.stream(
                "POST", "/query", params={**params, **more}, data=form
            ) as response:
                if not response.is_success:
                    await response.aread()
                    self._raise_for(response)
                async for text in _lines(response):
                    for result in json.loads(text).get("results", ()):
                        if "error" in result:
                            self._raise_for_answer(result["error"])
                        for piece in result.get("series", ()):
                            yield piece
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        except json.JSONDecodeError as error:
            message = f"{self._url} answered a question with something else than JSON: {error}"
            raise FleetError(problem(ErrorCode.METRICS_REFUSED, message)) from error

    async def _make_database(self) -> None:
        name, retention = influxql.quoted(self._settings.database), self._settings.retention
        existing = {
            row[0]
            async for piece in self._ask(Statement("SHOW DATABASES", {}))
            for row in piece.get("values", ())
        }
        if self._settings.database not in existing:
            _ = [piece async for piece in self._ask(Statement(f"CREATE DATABASE {name}", {}))]
        if retention is None:
            return
        hours = next(hours for below, hours in _SHARD_HOURS if retention < below)
        policies = [piece async for piece in self._ask(Statement(f"SHOW RETENTION POLICIES ON {name}", {}))]
        for policy, *_, default in policies[0]["values"]:
            if default:
                seconds = int(retention.total_seconds())
                text = f"ALTER RETENTION POLICY {influxql.quoted(policy)} ON {name}"
                change = Statement(f"{text} DURATION {seconds}s SHARD DURATION {hours}h", {})
                _ = [piece async for piece in self._ask(change)]

    def _make_bucket(self) -> None:
        """Create bucket and DBRP mapping of a 2.x; runs in a thread."""
        from influxdb_client.client.influxdb_client import InfluxDBClient  # noqa: PLC0415
        from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules  # noqa: PLC0415
        from influxdb_client.domain.dbrp_create import DBRPCreate  # noqa: PLC0415
        from influxdb_client.rest import ApiException  # noqa: PLC0415
        from influxdb_client.service.dbr_ps_service import DBRPsService  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        wanted, milliseconds = self._settings, int(self._settings.timeout * 1000)
        try:
            with InfluxDBClient(wanted.url, wanted.token, org=wanted.org, timeout=milliseconds) as client:
                buckets = client.buckets_api()
                bucket = buckets.find_bucket_by_name(wanted.database)
                if bucket is None:
                    keep = int(wanted.retention.total_seconds()) if wanted.retention else 0
                    rule = BucketRetentionRules(type="expire", every_seconds=keep)  # type: ignore[no-untyped-call]
                    bucket = buckets.create_bucket(bucket_name=wanted.database, retention_rules=rule)
                mappings = DBRPsService(client.api_client)  # type: ignore[no-untyped-call]
                found = mappings.get_dbr_ps(org_id=bucket.org_id, db=wanted.database)  # type: ignore[no-untyped-call]
                if not found.content:
                    mapping = DBRPCreate(  # type: ignore[no-untyped-call]
                        org_id=bucket.org_id,
                        bucket_id=bucket.id,
                        database=wanted.database,
                        retention_policy="autogen",
                        default=True,
                    )
                    mappings.post_dbrp(mapping)  # type: ignore[no-untyped-call]
        except ApiException as error:
            self._raise_for(httpx.Response(error.status or 500, text=str(error.body or error.reason or "")))
        except HTTPError as error:
            raise self._unreachable(error) from error

    async def _which(self) -> Generation:
        """Return which InfluxDB this is, asked once."""
        if self._generation is Generation.AUTO:
            version = await self._version()
            try:
                self._generation = Generation(version[:1])
            except ValueError:
                message = f"{self._url} answers as InfluxDB {shown(version)}; 1.x, 2.x and 3.x are known"
                refuse(ErrorCode.METRICS_REFUSED, message)
        return self._generation

    async def _version(self) -> str:
        """Return the version, from `/ping` or else `/health`, such as `1.8.10`."""
        ping = await self._send("GET", "/ping")
        found = ping.headers.get("X-Influxdb-Version", "")
        if not found:
            health = await self._send("GET", "/health")
            try:
                found = health.json().get("version", "")
            except (ValueError, AttributeError):
                found = ""
        if not found:
            self._raise_for(ping)
            message = f"{self._url} answers, but not as InfluxDB does; check the URL of the metrics"
            refuse(ErrorCode.METRICS_REFUSED, message)
        return str(found).removeprefix("v")

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **request)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> FleetError:
        message = f"InfluxDB at {self._url} does not answer: {error or type(error).__name__}"
        return FleetError(problem(ErrorCode.METRICS_UNREACHABLE, message))

    def _raise_for(self, response: httpx.Response) -> None:
        """Raise what an answer other than 2xx means."""
        if response.is_success:
            return
        where, reason = f"InfluxDB at {self._url}", _reason(response)
        database = shown(self._settings.database)
        match response.status_code:
            case 401:
                message = (
                    f"{where} does not accept our credentials ({reason}); correct user and password or token"
                )
            case 403:
                message = (
                    f"{where} does not let us use {database} ({reason}); give the user or token the right to"
                )
            case 404:
                message = (
                    f"{where} has no database or bucket {database} ({reason}); create it or correct the name"
                )
            case 429:
                refuse(ErrorCode.METRICS_UNREACHABLE, f"{where} has too much to do: {reason}")
            case status if status >= 500:  # noqa: PLR2004 - the server's own failures
                refuse(ErrorCode.METRICS_UNREACHABLE, f"{where} failed with {status}: {reason}")
            case status:
                message = f"{where} refused with {status}: {reason}"
        refuse(ErrorCode.METRICS_REFUSED, message)

    def _raise_for_answer(self, reason: str) -> None:
        """Raise what an error inside an answer means."""
        status = 404 if reason.startswith(("database not found", "retention policy not found")) else 400
        self._raise_for(httpx.Response(status, json={"error": reason}))


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the JSON texts of an answer; `aiter_lines` would also cut at U+0085 within a text."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for each in lines:
            yield each
    if rest:
        yield rest


def _reason(response: httpx.Response) -> str:
    """Return InfluxDB's own words: `error` on 1.x and 3.x, `message` on 2.x."""
    try:
        body = response.json()
    except ValueError:
        body = None
    words = (body.get("error") or body.get("message")) if isinstance(body, dict) else None
    return str(words or response.text or response.reason_phrase).strip()[:500]
