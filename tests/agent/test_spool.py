"""The telemetry spool: nothing unconfirmed is lost and no number is used twice, whatever happens."""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.telemetry.spool import Batch, Limits, Spool
from schemas.telemetry import Watermark

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALL = 10**9


async def everything(spool: Spool) -> list[Batch]:
    return await spool.pending(after=0, window=ALL, limit=ALL)


async def spool_at(path: Path, **limits: int) -> Spool:
    return await Spool.open(path, now=NOON, limits=Limits(**limits))


async def test_batches_come_back_in_order_until_they_are_acknowledged(tmp_path: Path) -> None:
    spool = await spool_at(tmp_path / "spool.db")
    await spool.append([b"[1]", b"[2]"])
    await spool.append([b"[3]"])

    gone = await spool.acknowledge(Watermark(boot=spool.boot, seq=2))

    assert gone == 2
    assert await everything(spool) == [Batch(3, b"[3]")]
    level = await spool.level()
    assert (level.batches, level.oldest, level.last, level.dropped) == (1, 3, 3, 0)
    await spool.close()


async def test_a_watermark_of_another_boot_changes_nothing(tmp_path: Path) -> None:
    spool = await spool_at(tmp_path / "spool.db")
    await spool.append([b"[1]"])

    assert await spool.acknowledge(Watermark(boot=uuid4(), seq=9)) == 0

    assert await everything(spool) == [Batch(1, b"[1]")]
    await spool.close()


async def test_numbers_go_on_after_everything_was_acknowledged_and_the_agent_started_anew(
    tmp_path: Path,
) -> None:
    first = await spool_at(tmp_path / "spool.db")
    await first.append([b"[1]", b"[2]"])
    await first.acknowledge(Watermark(boot=first.boot, seq=ALL))
    await first.close()

    second = await spool_at(tmp_path / "spool.db")
    await second.append([b"[3]"])

    assert second.boot == first.boot
    assert await everything(second) == [Batch(3, b"[3]")]
    await second.close()


async def test_a_window_shows_only_the_oldest_and_only_what_is_above_a_number(tmp_path: Path) -> None:
    spool = await spool_at(tmp_path / "spool.db")
    await spool.append([b"[]"] * 10)
    await spool.acknowledge(Watermark(boot=spool.boot, seq=3))

    assert [each.seq for each in await spool.pending(after=5, window=4, limit=ALL)] == [6, 7]
    assert [each.seq for each in await spool.pending(after=0, window=ALL, limit=2)] == [4, 5]
    await spool.close()


@pytest.mark.parametrize("limits", [{"batches": 3}, {"bytes": 30}])
async def test_the_oldest_give_way_and_are_counted(tmp_path: Path, limits: dict[str, int]) -> None:
    spool = await spool_at(tmp_path / "spool.db", **limits)

    for _ in range(5):
        await spool.append([b"0123456789"])

    assert [each.seq for each in await everything(spool)] == [3, 4, 5]
    level = await spool.level()
    assert (level.batches, level.dropped, level.oldest) == (3, 2, 3)
    await spool.close()


async def test_a_corrupt_file_is_set_aside_and_a_new_boot_begins(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    first = await spool_at(path)
    await first.append([b"[1]"])
    await first.close()
    path.write_bytes(b"this is not a database, whatever its name says" * 100)

    second = await spool_at(path)

    assert second.boot != first.boot
    assert await everything(second) == []
    assert str(tmp_path / "spool.db.corrupt-20260131T120000") in second.problems[0].message
    await second.close()


_APPENDING = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from device.telemetry.spool import Spool

async def main():
    spool = await Spool.open(Path(sys.argv[1]), now=datetime.now(UTC))
    for n in range(1, 100000):
        await spool.append([b"[%d]" % n])
        print(n, flush=True)

asyncio.run(main())
"""


def test_what_was_appended_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    process = subprocess.Popen(
        [sys.executable, "-c", _APPENDING, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    told = [20, *(int(line) for line in process.stdout if line.endswith("\n"))]
    process.wait()
    process.stdout.close()

    kept = asyncio.run(_read(path))
    assert [each.seq for each in kept][: told[-1]] == list(range(1, told[-1] + 1))
    assert all(each.samples == b"[%d]" % each.seq for each in kept)


async def _read(path: Path) -> list[Batch]:
    spool = await spool_at(path)
    kept = await everything(spool)
    await spool.close()
    return kept


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("acknowledge"), st.integers(0, 12)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_no_history_loses_an_unconfirmed_batch_or_uses_a_number_twice(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_live_through(Path(folder) / "spool.db", steps))


async def _live_through(path: Path, steps: list[tuple[str, int]]) -> None:
    opened = [await spool_at(path, batches=8)]
    kept: dict[int, bytes] = {}
    last = dropped = 0
    for step, number in steps:
        spool = opened[-1]
        if step == "append":
            await spool.append([b"[%d]" % (last + each) for each in range(1, number + 1)])
            kept |= {last + each: b"[%d]" % (last + each) for each in range(1, number + 1)}
            last += number
            while len(kept) > 8:
                del kept[min(kept)]
                dropped += 1
        elif step == "acknowledge":
            await spool.acknowledge(Watermark(boot=spool.boot, seq=number))
            kept = {seq: samples for seq, samples in kept.items() if seq > number}
        else:
            opened.append(await spool_at(path, batches=8))  # the former is left as a killed process would
        assert {each.seq: each.samples for each in await everything(opened[-1])} == kept
        level = await opened[-1].level()
        assert (level.last, level.dropped, level.batches) == (last, dropped, len(kept))
    assert len({spool.boot for spool in opened}) == 1
    for spool in opened:
        await spool.close()
    with sqlite3.connect(path) as db:
        (counted,) = db.execute("SELECT bytes FROM spool").fetchone()
    db.close()
    assert counted == sum(len(each) for each in kept.values())
