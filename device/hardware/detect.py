"""What the machine and its software are, as far as the machine tells."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from device import VERSION
from schemas.device import DeviceFacts

_MOST = 200
_MODEL_FILES = (
    "proc/device-tree/model",  # boards: "Raspberry Pi 4 Model B Rev 1.4"
    "sys/class/dmi/id/product_name",  # PCs and servers
)
_MEANINGLESS = {"", "to be filled by o.e.m.", "system product name", "none", "default string"}


def detect(engine: str = "", *, root: Path = Path("/")) -> DeviceFacts:
    """Return the facts of this machine; *engine* is what the container engine calls itself.

    What cannot be found is left empty. *root* is where `/proc` and `/sys` are. Reads files: not for the loop.
    """
    return DeviceFacts(
        hostname=platform.node()[:_MOST],
        model=_model(root),
        architecture=platform.machine()[:_MOST],
        os=_os(),
        kernel=platform.release()[:_MOST],
        cpu_count=psutil.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        engine=engine[:_MOST],
        agent_version=VERSION,
    )


def _model(root: Path) -> str:
    for name in _MODEL_FILES:
        try:
            text = (root / name).read_text(errors="replace").strip("\x00\n ")
        except OSError:
            continue
        if text.lower() not in _MEANINGLESS:
            return text[:_MOST]
    return ""


def _os() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")[:_MOST]
    except OSError:
        return platform.system()[:_MOST]
