from __future__ import annotations

import pytest

from agent.config.patterns import pattern
from agent.config.values import WrongValueError

GROUPS = "allowed are groups such as (?P<camera>…), named registration, camera, start, Y, y, m, d, H, M, S, event"
EXAMPLE = r"for example '(?P<camera>\d)_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'"


def message(value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        pattern(value)
    return f"{caught.value.wrong}; {caught.value.allowed}"


def test_a_pattern_reads_names_whatever_their_case() -> None:
    found = pattern(r"(?P<registration>[A-Z0-9]+)_(?P<camera>\d)\.mp4$").search("abc1234x_2.MP4")
    assert found is not None
    assert found.groupdict() == {"registration": "abc1234x", "camera": "2"}


def test_an_impossible_expression_is_refused_with_the_place_of_the_mistake() -> None:
    assert message(r"cam_(?P<camera>\d") == (
        "it is not a regular expression: missing ), unterminated subpattern at character 5, "
        'where it reads "(?P<camera>\\\\d"; correct it there'
    )


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("[[:digit:]](?P<camera>.)", "Possible nested set at position 1"),
        ("(?P<camera>a){99999999999}", "the repetition number is too large"),
    ],
)
def test_an_expression_that_python_would_read_differently_or_not_at_all_is_refused(expression: str, wrong: str) -> None:
    assert message(expression) == f"it is not a usable regular expression: {wrong}; write it simpler"


def test_a_pattern_without_a_named_group_would_read_nothing() -> None:
    assert message(r"\d+\.mp4") == (f"it has no named group, so nothing would be read from a name; {GROUPS}; {EXAMPLE}")


def test_an_unknown_group_is_refused_with_the_one_that_was_probably_meant() -> None:
    assert message("(?P<registartion>.+)") == (
        f'the group "registartion" is not known; did you mean registration? {GROUPS}'
    )
    assert message("(?P<zzz>.+)") == f'the group "zzz" is not known; {GROUPS}'


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("(?P<Y>.)(?P<H>.)", "it reads H, Y but not m, d, M: no start can be made of that"),
        ("(?P<m>.)(?P<d>.)(?P<H>.)(?P<M>.)", "it reads H, M, d, m but not Y: no start can be made of that"),
        ("(?P<S>.)", "it reads S but not Y, m, d, H, M: no start can be made of that"),
    ],
)
def test_half_a_date_is_refused(expression: str, wrong: str) -> None:
    allowed = "name Y (or y, two digits), m, d, H and M, and S if the name has seconds; or none of them"
    assert message(expression) == f"{wrong}; {allowed}"


@pytest.mark.parametrize(
    "expression", ["(?P<y>.)(?P<m>.)(?P<d>.)(?P<H>.)(?P<M>.)", "(?P<start>.+)", "(?P<event>E)?(?P<camera>.)"]
)
def test_a_start_may_lack_seconds_or_come_whole_or_from_elsewhere(expression: str) -> None:
    assert pattern(expression).pattern == expression


def test_a_pattern_is_text_that_is_not_empty() -> None:
    assert message("") == "it is empty; give it a value, or remove the line"
    assert message(5) == "5 is a whole number; allowed is text in quotes"


@pytest.mark.parametrize(
    "group",
    [
        r"(\d+)+",
        r"(?:a|a)*",
        r"(?:.*)*",
        r"(\w+\s?)*",
        r"(?:x{1,10}){1,10}",
        r"(?:REC|REC){0,99}",
        r"([0-9A-F]+-?)+",
        r"(?:[])]*)+",
    ],
)
def test_an_expression_that_would_take_years_on_some_names_is_refused(group: str) -> None:
    """The groups are found wherever they stand, and none of them would ever be tried on a real name."""
    assert "would take years on some names" in message(rf"^card\(1\)/(?:{group}_[)](?P<camera>\d))?\.mp4$")


@pytest.mark.parametrize(
    "expression",
    [
        r"(?P<registration>[A-Z0-9]+(?:[ -][A-Z0-9]+)*)_(?P<camera>\d)",
        r"(?:[^/]+/)*(?P<camera>\d)_.*_.*",
        r"((?P<camera>[)]\)+)x)+",
        r"(?P<start>(?P<camera>.)(?:(?P=camera)_)*)",
    ],
)
def test_an_expression_that_repeats_a_group_in_only_one_way_is_taken(expression: str) -> None:
    assert pattern(expression).pattern == expression


def test_an_expression_longer_than_any_name_needs_is_refused() -> None:
    assert message("(?P<camera>.)" + "a" * 1000) == "it has 1,013 characters; allowed are 1,000: write it simpler"
