"""What every answer must look like."""

from typing import Any

import httpx

from schemas.errors import MEANING, ErrorCode


def data_of(answer: httpx.Response, status: int = 200) -> Any:
    """Return what a good answer carries."""
    content = _envelope(answer)
    assert answer.status_code == status, content
    assert content["status"] == "ok", content
    assert "code" not in content
    return content["data"]


def refusal_of(answer: httpx.Response, code: ErrorCode) -> Any:
    """Return a refusal with *code*, whole."""
    content = _envelope(answer)
    assert content["status"] == "error", content
    assert content["code"] == code, content
    assert answer.status_code == MEANING[code].status
    assert content["data"] is None
    assert content["message"]
    return content


def _envelope(answer: httpx.Response) -> Any:
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    content = answer.json()
    assert content.keys() <= {"status", "data", "message", "code", "field"}
    assert content.keys() >= {"status", "data", "message"}
    return content
