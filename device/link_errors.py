"""Why there is no connection to the broker, in words that say what to do."""

from __future__ import annotations

import logging

_NO_WAY_IN = "this device's certificate"
_MEANINGS = (
    (
        "not yet valid",
        "by this device's clock the broker's certificate is not valid yet",
        "set the device's clock",
    ),
    ("certificate has expired", "the broker's certificate has expired", "check both clocks, or renew it"),
    (
        "alert certificate expired",
        f"{_NO_WAY_IN} has expired",
        "run fleet-agent purge --identity, then enrol",
    ),
    ("alert certificate revoked", f"{_NO_WAY_IN} is revoked", "run fleet-agent purge --identity, then enrol"),
    ("alert unknown ca", f"{_NO_WAY_IN} is another fleet's", "run fleet-agent purge --identity, then enrol"),
    ("alert", f"the broker refused {_NO_WAY_IN}", "the broker's log says why"),
    ("hostname mismatch", "the broker's certificate is for another name", "use the name it was made for"),
    ("ip address mismatch", "the broker's certificate is for another address", "use the one it was made for"),
    ("certificate_verify_failed", "the broker is not this fleet's", "check the host and the port"),
    ("session taken over", "another agent uses this device's identity", "stop it, or enrol one of them anew"),
    ("refused the subscription", "the broker denies this device its commands", "check the broker's ACL"),
    ("not authorized", "the broker denies this device its rights", "check the broker's ACL and revocations"),
    ("connection refused", "nothing listens there", "check that the broker runs"),
    ("name or service not known", "the host name is unknown", "check the name and this device's DNS"),
    ("unspecified error", "the connection broke", "it is made again; check the network and the broker"),
    ("timed out", "there was no answer in time", "check the network and the broker"),
)


def explain(text: str) -> str:
    """Return what the error *text* of a failed or broken connection means, and the next step."""
    for sign, meaning, advice in _MEANINGS:
        if sign in text.lower():
            return f"{meaning}; {advice} ({text})"
    return text or "the connection broke"


class Ear(logging.Handler):
    """Keeps the last error paho logged: the only place where it says why a handshake failed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard = ""
        self.logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001 - of this connection alone
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self.heard = record.getMessage()
