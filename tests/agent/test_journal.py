"""The journal on a real file: what it remembers, what it refuses, what a crash or a broken disk leaves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from device.database import StorageFailed
from device.journal import Journal, Starts
from schemas.config import AgentConfig, Config
from schemas.desired import Desired, Release
from schemas.errors import ErrorCode, problem
from schemas.reported import Outcome, Phase
from tests.agent.bench import fill_disk, free_disk

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=5)


def desired(generation: int) -> Desired:
    return Desired(
        generation=generation,
        release_id=UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"),
        release=Release(name="shop", version=str(generation), services=[]),
        issued_at=NOON,
    )


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db", now=NOON)
    yield opened
    await opened.close()


async def test_a_newer_generation_is_accepted_and_begins_idle(journal: Journal) -> None:
    assert await journal.accept_desired(desired(3), NOON)

    trial = await journal.trial()
    assert trial is not None
    assert (trial.generation, trial.phase, trial.outcome) == (3, Phase.IDLE, None)
    assert trial.since == trial.accepted_at == NOON
    assert await journal.desired() == desired(3)


@pytest.mark.parametrize("generation", [1, 2, 3])
async def test_a_generation_that_is_not_newer_changes_nothing(journal: Journal, generation: int) -> None:
    await journal.accept_desired(desired(3), NOON)
    await journal.record_phase(3, Phase.STAGING, NOON)

    assert not await journal.accept_desired(desired(generation), LATER)

    trial = await journal.trial()
    assert trial is not None
    assert (trial.generation, trial.phase) == (3, Phase.STAGING)


async def test_a_new_generation_forgets_holds_and_starts(journal: Journal) -> None:
    await journal.hold("web")
    await journal.note_start("web", NOON)

    await journal.accept_desired(desired(1), NOON)

    assert await journal.holds() == frozenset()
    assert await journal.starts("web") == Starts()


async def test_holds_are_kept_once_each_until_released(journal: Journal) -> None:
    await journal.hold("web")
    await journal.hold("web")
    await journal.hold("store")
    await journal.unhold("web")

    assert await journal.holds() == {"store"}


async def test_who_is_let_go_is_asked_to_start_until_that_is_done_or_orders_change(journal: Journal) -> None:
    await journal.hold("web")
    await journal.unhold("web")
    await journal.unhold("never-held")
    assert await journal.asked() == {"web"}

    await journal.unask("web")
    assert await journal.asked() == frozenset()

    await journal.ask("store")
    await journal.accept_desired(desired(1), NOON)
    assert await journal.asked() == frozenset()


async def test_starts_are_counted_per_service(journal: Journal) -> None:
    await journal.note_start("web", NOON)
    await journal.note_start("web", LATER)
    await journal.note_start("store", NOON)

    assert await journal.starts("web") == Starts(2, LATER)
    assert await journal.every_start() == {"web": Starts(2, LATER), "store": Starts(1, NOON)}


async def test_a_phase_keeps_the_time_it_began(journal: Journal) -> None:
    await journal.accept_desired(desired(1), NOON)
    await journal.record_phase(1, Phase.SOAKING, NOON)
    await journal.record_phase(1, Phase.SOAKING, LATER)

    trial = await journal.trial()
    assert trial is not None
    assert trial.since == NOON


async def test_words_on_an_older_generation_change_nothing(journal: Journal) -> None:
    await journal.accept_desired(desired(1), NOON)
    await journal.accept_desired(desired(2), NOON)

    await journal.record_phase(1, Phase.SWITCHING, LATER)
    await journal.record_outcome(1, Outcome.COMMITTED, (), LATER)

    trial = await journal.trial()
    assert trial is not None
    assert (trial.phase, trial.outcome) == (Phase.IDLE, None)
    assert await journal.committed_generation() == 0


@pytest.mark.parametrize(
    ("outcome", "committed"),
    [
        (Outcome.COMMITTED, 2),
        (Outcome.NO_CHANGE, 2),
        (Outcome.FAILED_NO_STATE_CHANGE, 1),
        (Outcome.NOT_ROLLED_BACK, 1),
        (Outcome.ROLLED_BACK, 1),
        (Outcome.UNABLE_TO_ROLL_BACK, 1),
    ],
)
async def test_only_success_moves_the_committed_generation(
    journal: Journal, outcome: Outcome, committed: int
) -> None:
    await journal.accept_desired(desired(1), NOON)
    await journal.record_outcome(1, Outcome.COMMITTED, (), NOON)
    await journal.accept_desired(desired(2), NOON)
    why = (problem(ErrorCode.HEALTH_FAILED, "web answered 503"),)

    await journal.record_outcome(2, outcome, why, LATER)

    trial = await journal.trial()
    assert trial is not None
    assert (trial.phase, trial.outcome, trial.problems, trial.since) == (Phase.DONE, outcome, why, LATER)
    assert await journal.committed_generation() == committed
    assert await journal.committed() == desired(committed)


async def test_only_a_higher_config_version_is_news(journal: Journal) -> None:
    newer = Config(version=2, agent=AgentConfig(telemetry_interval=3))

    assert await journal.config() == Config()
    assert await journal.accept_config(newer, NOON)
    assert not await journal.accept_config(Config(version=2), NOON)
    assert not await journal.accept_config(Config(version=1), NOON)
    assert await journal.config() == newer


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = await Journal.open(path, now=NOON)
    await first.accept_desired(desired(7), NOON)
    await first.hold("web")
    session = await first.next_session()
    revision = await first.next_revision()
    await first.close()

    again = await Journal.open(path, now=LATER)

    assert await again.desired() == desired(7)
    assert await again.holds() == {"web"}
    assert await again.next_session() > session
    assert await again.next_revision() > revision
    assert again.problems == ()
    await again.close()


@pytest.mark.parametrize("content", [b"not a database" * 400, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_corrupt_file_is_set_aside_and_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)

    journal = await Journal.open(path, now=NOON)

    assert (tmp_path / "journal.db.corrupt-20260131T120000").read_bytes() == content
    assert await journal.trial() is None
    assert "set aside" in journal.problems[0].message
    await journal.close()


async def test_a_document_nobody_can_read_counts_as_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await Journal.open(path, now=NOON)
    await journal.accept_desired(desired(7), NOON)
    await journal.database.run(lambda db: db.execute("UPDATE desired SET document = '{'"))
    await journal.close()

    again = await Journal.open(path, now=LATER)

    assert await again.desired() is None
    assert again.problems
    await again.close()


async def test_counters_go_on_growing_after_the_journal_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = await Journal.open(path, now=NOON)
    seen = [await first.next_session() for _ in range(100)]
    await first.close()
    path.unlink()

    fresh = await Journal.open(path, now=LATER)

    assert await fresh.next_session() > max(seen)
    await fresh.close()


async def test_counters_grow_while_the_disk_is_full_and_after_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = await Journal.open(path, now=NOON)
    before = await first.next_session()
    await fill_disk(first, "counters")
    during = [await first.next_session(), await first.next_session()]
    await free_disk(first)
    after = await first.next_session()
    await first.close()
    again = await Journal.open(path, now=NOON)

    assert [before, *during, after, await again.next_session()] == list(range(before, before + 5))
    await again.close()


async def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageFailed, match="cannot be read or written"):
        await Journal.open(tmp_path / "file" / "journal.db", now=NOON)


async def test_a_failed_transaction_leaves_nothing_behind(journal: Journal) -> None:
    def half(db: object) -> None:
        db.execute("INSERT INTO holds VALUES ('web')")  # type: ignore[attr-defined]
        db.execute("INSERT INTO nowhere VALUES (1)")  # type: ignore[attr-defined]

    with pytest.raises(StorageFailed):
        await journal.database.run(half)

    assert await journal.holds() == frozenset()
