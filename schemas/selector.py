"""Label selectors: `site=lab,model!=nano,tier in (a, b),!retired`. All terms must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from schemas.base import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN
from schemas.errors import ErrorCode, Unreadable, problem, shown

MAX_SELECTOR = 1000


class Operator(StrEnum):
    """How a term compares."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label; `values` is empty for `exists` and `absent`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* satisfy this term; without the label, `!=` and `notin` hold."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels

    def __str__(self) -> str:
        """Print the term so that it parses back."""
        match self.operator, self.values:
            case Operator.EXISTS, _:
                return self.key
            case Operator.ABSENT, _:
                return f"!{self.key}"
            case Operator.IN, (value,):
                return f"{self.key}={value}"
            case Operator.NOT_IN, (value,):
                return f"{self.key}!={value}"
            case operator, values:
                return f"{self.key} {operator} ({', '.join(values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Terms that must all hold; no term selects every device."""

    terms: tuple[Term, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a device with *labels* is selected."""
        return all(term.holds(labels) for term in self.terms)

    def __str__(self) -> str:
        """Print the selector so that it parses back."""
        return ",".join(map(str, self.terms))


_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>!=|==|=)\s*(?P<value>.*)$")
_KEY = re.compile(LABEL_KEY_PATTERN)
_VALUE = re.compile(LABEL_VALUE_PATTERN)


def parse_selector(text: str) -> Selector:
    """Return the selector written as *text*. Raises `Unreadable` (`selector.syntax`)."""
    if len(text) > MAX_SELECTOR:
        _refuse(text, f"longer than {MAX_SELECTOR} characters")
    if not text.strip():
        return Selector()
    return Selector(tuple(_term(part.strip(), text) for part in re.split(r",(?![^()]*\))", text)))


def _term(part: str, text: str) -> Term:
    if found := _SET.match(part):
        values = tuple(_value(value.strip(), text) for value in found["values"].split(","))
        return Term(_key(found["key"], text), Operator(found["operator"]), values)
    if found := _EQUAL.match(part):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return Term(_key(found["key"], text), operator, (_value(found["value"], text),))
    if part.startswith("!"):
        return Term(_key(part[1:], text), Operator.ABSENT)
    return Term(_key(part, text), Operator.EXISTS)


def _key(word: str, text: str) -> str:
    if not _KEY.fullmatch(word):
        _refuse(text, f"{shown(word)} is no label name")
    return word


def _value(word: str, text: str) -> str:
    if not _VALUE.fullmatch(word):
        _refuse(text, f"{shown(word)} is no label value")
    return word


def _refuse(text: str, why: str) -> NoReturn:
    message = f"selector {shown(text)}: {why}; write it like site=lab,model!=nano,tier in (a,b),!retired"
    raise Unreadable(problem(ErrorCode.SELECTOR_SYNTAX, message))
