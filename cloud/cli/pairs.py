"""Reading `KEY=VALUE` words from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cloud.cli.exits import Exit, stop


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Return `["site=lab"]` as `{"site": "lab"}`."""
    return dict(_split(word) for word in words)


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """Return `["service=web", "tail=5", "follow=true"]` with numbers and flags as JSON has them."""
    return {name: _value(text) for name, text in map(_split, words)}


def _split(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        stop(Exit.USAGE, "value.wrong_type", f"{word!r} is not KEY=VALUE, such as service=web")
    return name, value


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
