"""`fleet-agent` as a process: it enrols, connects, stops in order, and comes back as itself."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aiomqtt
import pytest

from device.identity import Claim, NotEnrolled, enrol, load
from schemas import topics
from schemas.commands import CommandResult, CommandStatus
from schemas.presence import Online, Presence
from schemas.reading import read
from schemas.topics import Topics
from tests.agent.door import TOKEN, Door, device_of, open_door
from tests.broker.clients import next_message, on_services_port, publish
from tests.servers.mosquitto import Mosquitto, free_ports

ROOT = Topics()
PATIENCE = 30.0
DONE, USAGE, NOT_ENROLLED, ALREADY_RUNS = 0, 2, 3, 4


@pytest.fixture
def door(broker: Mosquitto) -> Iterator[Door]:
    with open_door(broker) as opened:
        yield opened


@pytest.fixture
async def cloud(broker: Mosquitto) -> AsyncIterator[aiomqtt.Client]:
    async with on_services_port(broker, broker.service("fleet-cloud")) as client:
        await client.subscribe(ROOT.every(topics.Presence), qos=1)
        await client.subscribe(ROOT.every(topics.Result), qos=1)
        yield client


def claim(door: Door, token: str = TOKEN) -> Claim:
    return Claim(door.url, token, "gateway", {"site": "lab"})


async def start(*arguments: str) -> asyncio.subprocess.Process:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLEETLINE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "device", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def agent(folder: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start(
        "run", "--data-dir", str(folder), "--engine", "memory", "--enrol-url", url, "--token", TOKEN
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await ended(process)


async def presence(cloud: aiomqtt.Client, word: Online) -> tuple[UUID, Presence]:
    """Return the next presence that says *word*, and whose it is."""
    while True:
        message = await next_message(cloud)
        topic = ROOT.parse(str(message.topic))
        assert isinstance(message.payload, bytes)
        if isinstance(topic, topics.Presence) and not message.retain:
            said = read(Presence, message.payload)
            if said.status is word:
                return topic.device, said


async def final_result(cloud: aiomqtt.Client) -> CommandResult:
    while True:
        message = await next_message(cloud)
        assert isinstance(message.payload, bytes)
        if isinstance(ROOT.parse(str(message.topic)), topics.Result):
            result = read(CommandResult, message.payload)
            if result.status.final:
                return result


async def test_a_new_device_enrols_with_its_own_key_and_keeps_it_secret(tmp_path: Path, door: Door) -> None:
    identity = await enrol(tmp_path, claim(door))

    assert identity.device == device_of(door.claims[0])
    assert (door.claims[0].name, door.claims[0].labels) == ("gateway", {"site": "lab"})
    assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600
    assert load(tmp_path) == identity


async def test_an_enrolled_device_asks_for_nothing(tmp_path: Path, door: Door) -> None:
    first = await enrol(tmp_path, claim(door))

    assert await enrol(tmp_path, claim(door, token="spent_and_forgotten")) == first
    assert len(door.claims) == 1


async def test_a_claim_whose_answer_was_lost_is_repeated_with_the_same_key_and_id(
    tmp_path: Path, door: Door
) -> None:
    door.lose_answers = 1
    with pytest.raises(NotEnrolled) as lost:
        await enrol(tmp_path, claim(door))
    identity = await enrol(tmp_path, claim(door))

    assert lost.value.problem.retryable
    assert device_of(door.claims[0]) == device_of(door.claims[1]) == identity.device
    assert not (tmp_path / "identity.draft").exists()


KILL_AT_RENAME = """
import asyncio, os, pathlib, sys
from device.identity import Claim, enrol

data_dir, url, token, when = pathlib.Path(sys.argv[1]), *sys.argv[2:]

def kill(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("/identity"):
        if when == "before":
            os._exit(9)
        sys.addaudithook(lambda event, _: os._exit(9) if event == "os.open" or event == "os.remove" else None)

sys.addaudithook(kill)
asyncio.run(enrol(data_dir, Claim(url, token, "gateway", {})))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_around_the_last_step_of_enrolling_costs_no_identity(
    tmp_path: Path, door: Door, moment: str
) -> None:
    died = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILL_AT_RENAME, str(tmp_path), door.url, TOKEN, moment
    )
    assert await died.wait() == 9

    identity = await enrol(tmp_path, claim(door))

    assert {device_of(each) for each in door.claims} == {identity.device}
    assert len({each.csr for each in door.claims}) == 1


async def test_an_agent_that_has_just_enrolled_is_rid_of_what_it_enrolled_with(
    tmp_path: Path, door: Door, cloud: aiomqtt.Client
) -> None:
    async with agent(tmp_path, door.url) as process:
        await next_message(cloud)

        assert "cryptography" not in Path(f"/proc/{process.pid}/maps").read_text()  # noqa: ASYNC240 - no disk


async def test_a_damaged_identity_is_named_not_replaced(tmp_path: Path, door: Door) -> None:
    identity = await enrol(tmp_path, claim(door))
    identity.key.unlink()

    with pytest.raises(NotEnrolled, match="damaged"):
        await enrol(tmp_path, claim(door))


async def test_the_agent_waits_for_a_cloud_that_is_not_there_yet(
    tmp_path: Path, broker: Mosquitto, cloud: aiomqtt.Client
) -> None:
    (port,) = free_ports(1)
    async with agent(tmp_path, f"http://127.0.0.1:{port}/api/v1") as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert b"cloud.unreachable" in await process.stderr.readline()
        with open_door(broker, port=port) as door:
            door.busy = 1
            device, _ = await presence(cloud, Online.ONLINE)

    assert {device_of(each) for each in door.claims} == {device}


async def test_a_refused_token_ends_the_agent_with_the_reason(tmp_path: Path, door: Door) -> None:
    process = await start(
        "run", "--data-dir", str(tmp_path), "--enrol-url", door.url, "--token", "not_a_token_at_all"
    )
    code, _, err = await ended(process)

    assert code == NOT_ENROLLED
    assert err.splitlines()[-1] == "claim.unknown: the token is not known"


async def test_a_stop_is_orderly_and_quick(tmp_path: Path, door: Door, cloud: aiomqtt.Client) -> None:
    loop = asyncio.get_running_loop()
    async with agent(tmp_path, door.url) as process:
        device, online = await presence(cloud, Online.ONLINE)
        began = loop.time()
        process.send_signal(signal.SIGTERM)
        gone, offline = await presence(cloud, Online.OFFLINE)
        code, _, _ = await ended(process)

    assert (code, gone, offline.session) == (DONE, device, online.session)
    assert loop.time() - began < 3


async def test_a_killed_agent_comes_back_as_the_same_device_in_a_later_session(
    tmp_path: Path, door: Door, cloud: aiomqtt.Client
) -> None:
    async with agent(tmp_path, door.url):
        device, first = await presence(cloud, Online.ONLINE)  # leaving the block kills it
    dead, will = await presence(cloud, Online.OFFLINE)
    async with agent(tmp_path, door.url):
        again, second = await presence(cloud, Online.ONLINE)

    assert device == dead == again
    assert (will.session, will.boot) == (first.session, first.boot)
    assert second.session > first.session
    assert second.is_news(will)


async def test_a_command_from_a_topic_is_answered(
    tmp_path: Path, broker: Mosquitto, door: Door, cloud: aiomqtt.Client
) -> None:
    async with agent(tmp_path, door.url):
        device, _ = await presence(cloud, Online.ONLINE)
        topic = ROOT.print(topics.Command(device, "fly", UUID("5d1b4a8e-3c1f-4f7e-9a51-2f4f7f1f6a10")))
        assert await publish(broker.services_port, broker.service("operator"), topic) == ""
        result = await final_result(cloud)

    assert result.status is CommandStatus.REJECTED
    assert result.error is not None
    assert result.error.code == "command.unknown"


async def test_two_agents_cannot_work_with_the_same_files(
    tmp_path: Path, door: Door, cloud: aiomqtt.Client
) -> None:
    async with agent(tmp_path, door.url):
        await presence(cloud, Online.ONLINE)
        code, _, err = await ended(await start("run", "--data-dir", str(tmp_path), "--engine", "memory"))

    assert code == ALREADY_RUNS
    assert "an agent runs with" in err


async def test_status_says_what_the_files_say(tmp_path: Path, door: Door, cloud: aiomqtt.Client) -> None:
    async with agent(tmp_path, door.url):
        device, _ = await presence(cloud, Online.ONLINE)
        code, out, _ = await ended(await start("status", "--data-dir", str(tmp_path), "--json"))
    found = json.loads(out)

    assert (code, found["device"], found["running"], found["generation"]) == (DONE, str(device), True, 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["version"], DONE),
        (["status"], NOT_ENROLLED),
        (["purge"], DONE),
        (["run"], NOT_ENROLLED),
        (["enroll", "--enrol-url", "ftp://somewhere", "--token", TOKEN], NOT_ENROLLED),
        (["run", "--engine", "steam"], USAGE),
        (["run", "--label", "no-equals-sign"], USAGE),
        (["fly"], USAGE),
    ],
)
async def test_exit_codes_tell_scripts_what_happened(tmp_path: Path, arguments: list[str], code: int) -> None:
    files = ["--data-dir", str(tmp_path)] if arguments[0] not in {"version", "fly"} else []
    ended_with, _, err = await ended(await start(*arguments, *files))

    assert ended_with == code
    assert (code == DONE) == (err == "")
    assert "Traceback" not in err
