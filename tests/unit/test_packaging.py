"""What the distribution promises: small devices, exact locks, and no address of a package index."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
REQUIREMENT = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)(.*)$")


def locked(lock: Path) -> dict[str, str]:
    """Return the version of each package that *lock* names."""
    lines = (REQUIREMENT.match(line) for line in lock.read_text().splitlines())
    return {match[1]: match[2] for match in lines if match}


def test_there_is_a_lock_for_each_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert {lock.stem for lock in LOCKS} == set(extras)


@pytest.mark.parametrize(
    "unwanted", ["fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "influxdb-client"]
)
def test_a_device_gets_nothing_of_the_cloud(unwanted: str) -> None:
    device = locked(ROOT / "requirements" / "device.lock")

    assert "aiomqtt" in device
    assert unwanted not in device


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_address(lock: Path) -> None:
    text = lock.read_text()

    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_hashes(lock: Path) -> None:
    packages = re.split(r"\n(?=[a-z0-9])", lock.read_text())[1:]

    assert len(packages) == len(locked(lock))
    assert [package for package in packages if "--hash=sha256:" not in package] == []


@pytest.mark.parametrize("name", ["device", "cloud"])
def test_the_tests_run_the_versions_that_are_installed_in_the_field(name: str) -> None:
    field = locked(ROOT / "requirements" / f"{name}.lock").items()

    assert field - locked(ROOT / "requirements" / "dev.lock").items() == set()


def test_every_requirement_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in asked} - {project["name"]}

    assert names - locked(ROOT / "requirements" / "dev.lock").keys() == set()


def test_what_builds_the_package_is_locked_too() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]

    assert {re.split(r"[<>=]", requirement)[0] for requirement in build} == {"setuptools"}
    assert "setuptools" in locked(ROOT / "requirements" / "dev.lock")
