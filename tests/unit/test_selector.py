"""Label selectors print and parse the same language, and select what they say."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Unreadable
from schemas.selector import Operator, Selector, Term, parse_selector

edges = string.ascii_letters + string.digits


def words(inner: str) -> st.SearchStrategy[str]:
    """Return labels' words: *inner* characters may stand between letters and digits."""
    ends = st.sampled_from(edges)
    return ends | st.builds("{}{}{}".format, ends, st.text(edges + inner, max_size=20), ends)


keys = words("_./-")
values = st.just("") | words("_. /:@+-")
some_values = st.lists(values, min_size=1, max_size=4).map(tuple)
terms = st.one_of(
    st.builds(Term, keys, st.sampled_from([Operator.IN, Operator.NOT_IN]), some_values),
    st.builds(Term, keys, st.sampled_from([Operator.EXISTS, Operator.ABSENT])),
)
selectors = st.lists(terms, max_size=4).map(lambda found: Selector(tuple(found)))
few = st.sampled_from(["a", "b", "c"])
labels = st.dictionaries(few, few)
few_terms = st.one_of(
    st.builds(
        Term, few, st.sampled_from([Operator.IN, Operator.NOT_IN]), st.lists(few, min_size=1).map(tuple)
    ),
    st.builds(Term, few, st.sampled_from([Operator.EXISTS, Operator.ABSENT])),
)


@given(selectors.filter(lambda selector: len(str(selector)) <= 1000))
def test_a_printed_selector_parses_back(selector: Selector) -> None:
    assert parse_selector(str(selector)) == selector


@given(st.text() | st.text(st.sampled_from("ab=!,() in\tnot\n"), max_size=30))
def test_any_text_is_a_selector_that_prints_back_or_is_unreadable(text: str) -> None:
    try:
        selector = parse_selector(text)
    except Unreadable:
        return
    assert parse_selector(str(selector)) == selector


@given(few_terms, labels)
def test_a_term_and_its_opposite_never_agree(term: Term, known: dict[str, str]) -> None:
    opposite = {
        Operator.IN: Operator.NOT_IN,
        Operator.NOT_IN: Operator.IN,
        Operator.EXISTS: Operator.ABSENT,
        Operator.ABSENT: Operator.EXISTS,
    }[term.operator]

    assert term.holds(known) is not Term(term.key, opposite, term.values).holds(known)


@given(st.lists(few_terms), st.lists(few_terms), labels)
def test_all_terms_must_hold(some: list[Term], more: list[Term], known: dict[str, str]) -> None:
    both = Selector((*some, *more)).matches(known)

    assert both is (Selector(tuple(some)).matches(known) and Selector(tuple(more)).matches(known))


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("", ["lab-pi", "shop-nano", "bare"]),
        ("site=lab", ["lab-pi"]),
        ("site==lab", ["lab-pi"]),
        ("site = lab , model != nano", ["lab-pi"]),
        ("model!=nano", ["lab-pi", "bare"]),
        ("site in (lab, shop)", ["lab-pi", "shop-nano"]),
        ("site notin (lab)", ["shop-nano", "bare"]),
        ("site", ["lab-pi", "shop-nano"]),
        ("!site", ["bare"]),
        ("site=", []),
    ],
)
def test_selectors_select(text: str, matching: list[str]) -> None:
    fleet = {
        "lab-pi": {"site": "lab", "model": "pi"},
        "shop-nano": {"site": "shop", "model": "nano"},
        "bare": {},
    }

    assert [name for name, known in fleet.items() if parse_selector(text).matches(known)] == matching


@pytest.mark.parametrize(
    "text", [",", "a,,b", "=x", "a in b", "a in (b", "!", "a=b=c", "a b", "a=(b)", "x" * 1001]
)
def test_what_is_no_selector_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_selector(text)

    assert caught.value.code == "selector.syntax"
