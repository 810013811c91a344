"""The machine's Docker daemon for tests, and the demo's image under a tag of the run's own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_SCRIPT = Path(__file__).parents[2] / "deploy" / "demo" / "build-image.sh"


class NoDocker(Exception):  # noqa: N818 - says what is the case
    """No Docker daemon answers."""


@contextmanager
def demo_image() -> Iterator[str]:
    """Make the demo's image and yield its tag; remove the tag and what still uses it afterwards."""
    found = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise NoDocker(f"no Docker daemon answers; run deploy/setup.sh\n{found.stderr}")
    tag = f"fleetline-test/{uuid4().hex[:12]}:1"
    subprocess.run([_SCRIPT, tag], check=True, capture_output=True)
    try:
        yield tag
    finally:
        left = docker("ps", "-aq", "--filter", f"ancestor={tag}").split()
        if left:
            docker("rm", "-f", "-v", *left)
        docker("rmi", "--no-prune", tag)


def docker(*arguments: str) -> str:
    """Run one `docker` command and return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
