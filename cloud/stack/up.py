"""Starting a local stack and keeping it up: one straight page, each step reported as it goes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from broker_config.settings import UnsafeSettings
from cloud.stack import parts
from cloud.stack.layout import HOST, Endpoints, Layout, MetricsKind, StackSettings, save, save_secret
from cloud.stack.ports import PortTaken, choose
from cloud.stack.processes import Program, Supervisor, end_all, last_words, members
from cloud.stack.progress import Report, StackFailed, Step, StepState
from cloud.store import keys
from cloud.store.database import Database

_LOOK_EVERY = 0.1
_TOO_OFTEN = 2
"""Ends of one program during the start that are taken for a failure."""


Ready = Callable[[], Awaitable[str]]


class _NotYet(Exception):  # noqa: N818
    """The part answers but is not ready; the text says what is missing."""


async def run(
    directory: Path,
    asked: StackSettings,
    report: Report,
    stopping: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Start everything, keep it up until *stopping*, end it in order.

    Once everything is up, endpoints.json is written and *ready* called. Raises
    `StackFailed` where a part does not come up; what had started is ended.
    """
    layout = Layout(directory)
    layout.make()
    with _only_one(layout.lock):
        end_all(members(layout.directory), grace=10)
        layout.endpoints.unlink(missing_ok=True)
        try:
            settings = choose(asked, layout.read_settings())
        except PortTaken as error:
            raise StackFailed("ports", str(error)) from error
        save(layout.settings, settings)
        async with asyncio.TaskGroup() as tasks:
            stack = _Stack(layout, settings, report, tasks)
            try:
                await _unless(stopping, stack.start())
                ready()
                await stopping.wait()
            finally:
                await stack.stop()


class _Stack:
    """One start of a stack: its settings with ports chosen, and its running parts."""

    def __init__(
        self, layout: Layout, settings: StackSettings, report: Report, tasks: asyncio.TaskGroup
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._report = report
        self._supervisor = Supervisor(layout.directory, tasks, self._note_pids)
        self._started: list[Sequence[Program]] = []
        self._endpoints: Endpoints | None = None

    async def start(self) -> None:
        """Bring up part after part; then say where everything is."""
        layout, settings = self._layout, self._settings
        try:
            authority = parts.certificates(layout, datetime.now(UTC))
            await self._bring_up("broker", [parts.broker(layout, settings, authority)], self._broker_ready)
            if settings.metrics is MetricsKind.INFLUX:
                await self._bring_up("influxdb", [parts.influx(layout, settings)], self._influx_ready)
            await self._bring_up("cloud", [parts.cloud(layout, settings)], self._cloud_ready)
        except parts.NotInstalled as error:
            raise StackFailed("setup", str(error)) from error
        except UnsafeSettings as error:
            raise StackFailed("broker", str(error)) from error
        key = await self._admin_key()
        async with self._client(key) as client:
            devices = [parts.device(layout, settings, number) for number in self._numbers]
            if devices:
                await self._enrolment_token(client)
                await self._bring_up("devices", devices, lambda: self._devices_ready(client))
            endpoints = await self._describe(client, key)
        self._endpoints = endpoints
        self._note_pids()

    @property
    def _numbers(self) -> range:
        return range(1, self._settings.devices + 1)

    async def stop(self) -> None:
        """End every part, the last one started first."""
        self._endpoints = None
        self._layout.endpoints.unlink(missing_ok=True)
        for programs in reversed(self._started):
            await self._supervisor.stop(programs)

    async def _bring_up(self, part: str, programs: Sequence[Program], ready: Ready) -> None:
        self._report(Step(part, StepState.BEGUN))
        self._started.append(programs)
        for program in programs:
            try:
                await self._supervisor.start(program)
            except OSError as error:
                raise StackFailed(part, f"cannot start {program.arguments[0]}: {error}") from error
        self._report(Step(part, StepState.DONE, await self._await_ready(part, programs, ready)))

    async def _await_ready(self, part: str, programs: Sequence[Program], ready: Ready) -> str:
        """Return *ready*'s detail once it answers; give up when a program keeps ending, or after a while."""
        patience = 60.0 + 2.0 * len(programs)
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await ready()
            except (OSError, httpx.HTTPError, _NotYet) as error:
                reason = str(error) or type(error).__name__
            failing = [each for each in programs if self._supervisor.endings(each.name) >= _TOO_OFTEN]
            if failing:
                words = last_words(failing[0].log)
                raise StackFailed(part, f"{failing[0].name} ends again and again; {failing[0].log}:\n{words}")
            if asyncio.get_running_loop().time() > deadline:
                words = last_words(programs[0].log)
                raise StackFailed(
                    part, f"not ready after {patience:.0f} s: {reason}; {programs[0].log}:\n{words}"
                )
            await asyncio.sleep(_LOOK_EVERY)

    async def _broker_ready(self) -> str:
        for port in (self._settings.mqtt_port, self._settings.device_mqtt_port):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
        return f"mqtts://{HOST}:{self._settings.mqtt_port}"

    async def _influx_ready(self) -> str:
        url = parts.metrics_url(self._layout, self._settings)
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.get(f"{url}/ping")).raise_for_status()
        return url

    async def _cloud_ready(self) -> str:
        async with self._client() as client:
            answer = await client.get("/health")
        if answer.status_code != httpx.codes.OK:
            raise _NotYet(answer.text[:500])
        return parts.api_url(self._settings)

    async def _devices_ready(self, client: httpx.AsyncClient) -> str:
        online = [each for each in await self._local_devices(client) if each["online"]]
        if len(online) < self._settings.devices:
            raise _NotYet(f"{len(online)} of {self._settings.devices} are online")
        return f"{len(online)} online"

    @asynccontextmanager
    async def _client(self, key: str = "") -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(
            base_url=parts.api_url(self._settings), headers=headers, timeout=10, trust_env=False
        ) as client:
            yield client

    async def _admin_key(self) -> str:
        """Return the administrator's API key, made at the first start."""
        if self._layout.admin_key.exists():
            return self._layout.admin_key.read_text("utf-8").strip()
        database = await Database.open(parts.database_url(self._layout, self._settings))
        try:
            async with database.session() as session:
                _, secret = await keys.create(
                    session, name="admin", scopes=["*"], expires_at=None, now=datetime.now(UTC)
                )
        finally:
            await database.close()
        save_secret(self._layout.admin_key, secret)
        return secret

    async def _enrolment_token(self, client: httpx.AsyncClient) -> None:
        order = {"uses": self._settings.devices, "ttl": 3600}
        answer = await client.post("/edge/enrolment/tokens", json=order)
        if answer.is_error:
            raise StackFailed("cloud", f"no enrolment token: {answer.text[:500]}")
        save_secret(self._layout.token, answer.json()["data"]["token"])

    async def _local_devices(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """Return the stack's own devices as the API lists them."""
        ids = {self._layout.device_id(number): number for number in self._numbers}
        found: list[dict[str, Any]] = []
        parameters: dict[str, str | int] = {"limit": 500}
        while True:
            page = (await client.get("/edge/devices", params=parameters)).raise_for_status().json()["data"]
            found += [each for each in page["devices"] if each["id"] in ids]
            if not page["next"]:
                return sorted(found, key=lambda each: ids[each["id"]])
            parameters["after"] = page["next"]

    async def _describe(self, client: httpx.AsyncClient, key: str) -> Endpoints:
        operator_chain, operator_key = self._layout.certificate("operator")
        devices = await self._local_devices(client)
        folders = [self._layout.device(number) for number in self._numbers]
        return Endpoints(
            api_url=parts.api_url(self._settings),
            api_key=key,
            mqtt_host=HOST,
            mqtt_port=self._settings.mqtt_port,
            ca_file=self._layout.pki / "root.pem",
            operator_cert=operator_chain,
            operator_key=operator_key,
            topic_root=self._settings.topic_root,
            metrics_url=parts.metrics_url(self._layout, self._settings),
            device_ids=[each["id"] for each in devices],
            pids={},
            device_mqtt_port=self._settings.device_mqtt_port,
            devices={each["id"]: folder for each, folder in zip(devices, folders, strict=True)},
        )

    def _note_pids(self) -> None:
        """Bring the process ids in endpoints.json up to date, once it is there."""
        if self._endpoints is not None:
            pids = {"stack": os.getpid(), **self._supervisor.pids}
            save(self._layout.endpoints, self._endpoints.model_copy(update={"pids": pids}))


async def _unless(stopping: asyncio.Event, work: Awaitable[None]) -> None:
    """Carry out *work*, but drop it as soon as *stopping* is set."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, stop):
            each.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold *path*'s lock; refuse a second stack in the same directory."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            why = f"one runs in {path.parent} already; end it with: fleet down --data-dir {path.parent}"
            raise StackFailed("stack", why) from error
        yield


def stop_on_signals(stopping: asyncio.Event) -> None:
    """Set *stopping* on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
