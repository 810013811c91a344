"""docs/errors.md, made from `schemas.errors`: `python -m cloud.api.error_page` prints it."""

from __future__ import annotations

import sys

from schemas.errors import MEANING, ErrorCode

_HEAD = """\
# Error codes

<!-- Made by `python -m cloud.api.error_page`; a test compares. -->

Codes are stable: they are never renamed or reused, so programs may match on them. Texts are for people and
may change. Over REST a code comes in the envelope that [api.md](api.md) shows, and an HTTP status beside it;
from a device it comes in results and reports. *Retry* marks what may go away by itself.
"""


def error_page() -> str:
    """Return the page: every code, by its first word."""
    lines = [_HEAD]
    group = ""
    for code in ErrorCode:
        first = code.value.partition(".")[0]
        if first != group:
            lines += [f"\n## {first}\n", "| code | HTTP | retry | meaning |", "|---|---|---|---|"]
            group = first
        meaning = MEANING[code]
        retry = "yes" if meaning.retry else ""
        lines.append(f"| `{code}` | {meaning.status} | {retry} | {meaning.text} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(error_page())
