from __future__ import annotations

import pytest

from agent.config.patterns import pattern
from agent.config.values import WrongValueError

GROUPS = "allowed: groups such as (?P<camera>…), named registration, camera, start, Y, y, m, d, H, M, S, event"
EXAMPLE = r"for example '(?P<camera>\d)_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'"


def message(value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        pattern(value)
    return f"{caught.value.wrong}; {caught.value.allowed}"


def test_a_pattern_ignores_case() -> None:
    found = pattern(r"(?P<registration>[A-Z0-9]+)_(?P<camera>\d)\.mp4$").search("abc1234x_2.MP4")
    assert found is not None
    assert found.groupdict() == {"registration": "abc1234x", "camera": "2"}


def test_a_syntax_error_is_refused_with_its_position() -> None:
    assert message(r"cam_(?P<camera>\d") == (
        "it is not a regular expression: missing ), unterminated subpattern at character 5, "
        '"(?P<camera>\\\\d"; correct it there'
    )


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("[[:digit:]](?P<camera>.)", "Possible nested set at position 1"),
        ("(?P<camera>a){99999999999}", "the repetition number is too large"),
    ],
)
def test_an_ambiguous_or_unusable_expression_is_refused(expression: str, wrong: str) -> None:
    assert message(expression) == f"it is not a usable regular expression: {wrong}; write it simpler"


def test_a_pattern_without_a_named_group_is_refused() -> None:
    assert message(r"\d+\.mp4") == (f"it has no named group, so it would find nothing in a name; {GROUPS}; {EXAMPLE}")


def test_an_unknown_group_is_refused_with_the_closest_match() -> None:
    assert message("(?P<registartion>.+)") == (
        f'the group "registartion" is unknown; did you mean "registration"? {GROUPS}'
    )
    assert message("(?P<zzz>.+)") == f'the group "zzz" is unknown; {GROUPS}'


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("(?P<Y>.)(?P<H>.)", "it has the groups H, Y but not m, d, M: not a complete time"),
        ("(?P<m>.)(?P<d>.)(?P<H>.)(?P<M>.)", "it has the groups H, M, d, m but not Y: not a complete time"),
        ("(?P<S>.)", "it has the groups S but not Y, m, d, H, M: not a complete time"),
    ],
)
def test_an_incomplete_time_is_refused(expression: str, wrong: str) -> None:
    allowed = "name Y (or y, two digits), m, d, H and M, and S if the name has seconds; or none of them"
    assert message(expression) == f"{wrong}; {allowed}"


@pytest.mark.parametrize(
    "expression", ["(?P<y>.)(?P<m>.)(?P<d>.)(?P<H>.)(?P<M>.)", "(?P<start>.+)", "(?P<event>E)?(?P<camera>.)"]
)
def test_a_time_needs_no_seconds_and_a_pattern_needs_no_time(expression: str) -> None:
    assert pattern(expression).pattern == expression


def test_a_pattern_is_text_that_is_not_empty() -> None:
    assert message("") == "it is empty; give it a value, or remove the line"
    assert message(5) == "5 is a whole number; allowed: text in quotes"


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
def test_an_expression_with_catastrophic_backtracking_is_refused(group: str) -> None:
    """The group is found wherever it is in an expression. A real match with any of these would not end."""
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
def test_a_repeated_group_that_matches_in_only_one_way_is_accepted(expression: str) -> None:
    assert pattern(expression).pattern == expression


def test_an_expression_of_more_than_1000_characters_is_refused() -> None:
    assert message("(?P<camera>.)" + "a" * 1000) == "it has 1,013 characters; allowed: 1,000"
