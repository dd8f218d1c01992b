from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import FootageFolder
from agent.config.schema import schema
from agent.config.values import (
    Reader,
    WrongValueError,
    as_toml,
    cameras,
    closest_match,
    flag,
    globs,
    integer,
    literal,
    one_of,
    path,
    seconds,
    size,
    text,
    username,
    zone,
)

SIZE = size(1, 50_000_000)
SIZE_ALLOWED = 'allowed is 1 byte to 50 MB, written as 8000000, "8 MB" or "8 MiB"'
CLIPS = integer(1, 100, "clips in one request")
CLIPS_ALLOWED = "allowed is a whole number from 1 to 100 (clips in one request), without quotes"
WAIT = seconds(0.1, 300)
WAIT_ALLOWED = "allowed is a number of seconds from 0.1 to 300, without quotes"
ZONE_ALLOWED = 'allowed is an IANA time zone such as "Africa/Johannesburg", or "UTC"'
CAMERA_ALLOWED = "allowed is a whole number from 0 to 255 (the camera's channel), without quotes"

toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
readers = st.sampled_from(
    [read for keys in schema(Path("/etc"), ("auto", "viofo")).values() for read in keys.values()],
)


def message(read: Reader, value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        read(value)
    return f"{caught.value.wrong}; {caught.value.allowed}"


@given(readers, toml_values)
def test_any_value_is_either_read_or_explained_in_one_printable_line(read: Reader, value: object) -> None:
    told = ""
    try:
        read(value)
    except WrongValueError as error:
        told = str(error)
    assert told.isprintable()


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (50_000_000, 50_000_000),
        ("50000000", None),
        ("50 MB", 50_000_000),
        ("50MB", 50_000_000),
        ("50 mb", 50_000_000),
        ("1.5 MB", 1_500_000),
        ("40 MiB", 41_943_040),
        ("0.1 GB", None),
        ("512 KiB", 524_288),
        ("700 B", 700),
    ],
)
def test_a_size_is_a_number_of_bytes_or_text_with_a_unit(written: object, count: int | None) -> None:
    if count is None:
        assert message(SIZE, written).endswith(SIZE_ALLOWED)
    else:
        assert SIZE(written) == count


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("50 MiB", '"50 MiB" is too large'),
        (0, "0 is too small"),
        (-5, "-5 is too small"),
        ("much", '"much" is no size'),
        ("5 XB", '"5 XB" is no size'),
        (True, "true is a yes-or-no value"),
        (1.5, "1.5 is a number"),
        ([1], "it is a list"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_what_is_allowed(written: object, wrong: str) -> None:
    assert message(SIZE, written) == f"{wrong}; {SIZE_ALLOWED}"


def test_a_limit_of_a_size_is_shown_in_the_unit_that_keeps_it_whole() -> None:
    assert "allowed is 0 bytes to 8 GB," in message(size(0, 8_000_000_000), -1)
    assert "allowed is 1500 bytes to 100 TB," in message(size(1500, 100 * 10**12), 1)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (0, "0 is too small"),
        (101, "101 is too large"),
        (True, "true is a yes-or-no value"),
        (20.0, "20.0 is a number"),
        ("20", '"20" is text'),
        (date(2026, 1, 1), '"2026-01-01" is a date or a time'),
        ({"a": "secret"}, "it is a table"),
    ],
)
def test_a_whole_number_must_be_one_and_in_range(written: object, wrong: str) -> None:
    assert message(CLIPS, written) == f"{wrong}; {CLIPS_ALLOWED}"


@pytest.mark.parametrize("written", [1, 100])
def test_the_ends_of_a_range_are_inside(written: int) -> None:
    assert CLIPS(written) == written


def test_seconds_may_be_whole_or_fractions_and_become_a_float() -> None:
    assert repr(WAIT(3)) == "3.0"
    assert WAIT(0.1) == 0.1


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (0, "0 is not between 0.1 and 300"),
        (300.5, "300.5 is not between 0.1 and 300"),
        (float("nan"), "NaN is not between 0.1 and 300"),
        (float("inf"), "Infinity is not between 0.1 and 300"),
        (False, "false is a yes-or-no value"),
        ("30", '"30" is text'),
    ],
)
def test_seconds_must_be_a_number_in_range(written: object, wrong: str) -> None:
    assert message(WAIT, written) == f"{wrong}; {WAIT_ALLOWED}"


def test_a_flag_is_no_number_and_no_text() -> None:
    assert flag(True) is True
    assert message(flag, 1) == "1 is a whole number; allowed is true or false, without quotes"
    assert message(flag, "true") == '"true" is text; allowed is true or false, without quotes'


def test_a_word_must_be_one_of_the_list_and_the_nearest_is_suggested() -> None:
    mode = one_of(("bulk", "single"))
    assert mode("bulk") == "bulk"
    assert message(mode, "Bulk") == '"Bulk" is not known here; did you mean "bulk"? allowed: bulk, single'
    assert message(mode, "xyz") == '"xyz" is not known here; allowed: bulk, single'
    assert message(mode, 1) == "1 is a whole number; allowed: bulk, single (in quotes)"


def test_the_words_of_a_literal_type_are_the_allowed_ones() -> None:
    after_delivery = literal(FootageFolder, "after_delivery")
    assert after_delivery("delete") == "delete"
    assert message(after_delivery, "remove") == '"remove" is not known here; allowed: keep, delete'


def test_a_time_zone_is_read_by_its_iana_name() -> None:
    assert zone("Africa/Johannesburg") == ZoneInfo("Africa/Johannesburg")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Africa/Johannesberg", 'did you mean "Africa/Johannesburg"?'),
        ("africa/johannesburg", 'did you mean "Africa/Johannesburg"?'),
        ("Johannesburg", 'did you mean "Africa/Johannesburg"?'),
        ("new york", 'did you mean "America/New_York"?'),
        ("SAST", ZONE_ALLOWED),
        ("+02:00", ZONE_ALLOWED),
        ("", ZONE_ALLOWED),
    ],
)
def test_an_unknown_time_zone_is_refused_with_the_zones_that_were_probably_meant(written: str, expected: str) -> None:
    assert message(zone, written) == f"there is no time zone {json.dumps(written)}; {expected}"


def test_a_zone_with_an_inverted_sign_is_never_suggested() -> None:
    assert message(zone, "GMT+2") == f'there is no time zone "GMT+2"; {ZONE_ALLOWED}'


@pytest.mark.parametrize("written", ["Africa", "../../etc/passwd", "a\0b", "x" * 5000])
def test_a_name_that_is_no_zone_at_all_is_refused_too(written: str) -> None:
    assert message(zone, written).startswith("there is no time zone ")


def test_a_time_zone_is_text() -> None:
    assert message(zone, 2) == (
        '2 is a whole number; allowed is an IANA time zone in quotes, such as "Africa/Johannesburg" or "UTC"'
    )


def test_a_relative_path_starts_at_the_given_folder() -> None:
    assert path(Path("/etc/vision-ingest"))("card") == Path("/etc/vision-ingest/card")
    assert path(Path("/etc/vision-ingest"))("/media/card") == Path("/media/card")


def test_a_path_in_a_home_directory_is_refused_because_the_service_has_none() -> None:
    assert message(path(Path("/etc")), "~/card") == (
        '"~/card" starts with ~; write the whole path: the service has no home'
    )


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("", "it is empty; give it a value, or remove the line"),
        ("  ", "it is empty; give it a value, or remove the line"),
        (" ABC", '" ABC" has a space at an end or an invisible character; allowed is text without them'),
        ("A\u202eB", '"A\\u202eB" has a space at an end or an invisible character; allowed is text without them'),
        ("A\0B", '"A\\u0000B" has a space at an end or an invisible character; allowed is text without them'),
        (7, "7 is a whole number; allowed is text in quotes"),
    ],
)
def test_text_must_be_visible_as_it_is(written: object, wrong: str) -> None:
    assert message(text, written) == wrong


def test_a_username_with_a_colon_is_refused_without_showing_it() -> None:
    assert username("fleet") == "fleet"
    assert message(username, "fleet:hunter2") == (
        "it holds a colon; allowed is the username alone: HTTP Basic ends it at a colon"
    )


def test_file_name_patterns_are_a_list_of_text() -> None:
    allowed = 'allowed is a list of file name patterns, such as ["*.mp4", "*.mov"]'
    include = globs(fewest=1)
    assert include(["*.mp4"]) == ("*.mp4",)
    assert globs(fewest=0)([]) == ()
    assert message(include, "*.mp4") == f'"*.mp4" is text; {allowed}'
    assert message(include, [1]) == f"1 in the list is no file name pattern; {allowed}"
    assert message(include, []) == f"the list is empty: no file would ever be taken; {allowed}"


def test_cameras_are_channels_by_name() -> None:
    assert cameras({"F": 1, "rear view": 2}) == {"F": 1, "rear view": 2}
    assert message(cameras, {"F": True}) == f'camera "F": true is a yes-or-no value; {CAMERA_ALLOWED}'
    assert message(cameras, {"F": 256}) == f'camera "F": 256 is too large; {CAMERA_ALLOWED}'
    assert message(cameras, 1) == (
        "1 is a whole number; allowed is a table of names and channels, such as { F = 1, R = 2 }"
    )


def test_a_long_value_is_cut_in_a_message() -> None:
    assert as_toml("x" * 500) == f'"{"x" * 56}...'


def test_the_nearest_word_is_found_whatever_the_case() -> None:
    assert closest_match("ZA", ["za", "zm"]) == "za"
    assert closest_match("batch_clip", ["batch_clips", "batch_bytes"]) == "batch_clips"
    assert closest_match("qqq", ["za", "zm"]) is None


@pytest.mark.parametrize("written", ["9" * 5000 + " GB", "1." + "9" * 5000 + " GB", "٣ GB"])
def test_a_size_of_thousands_of_digits_is_no_size(written: str) -> None:
    assert "is no size" in message(size(1, 100), written)


@pytest.mark.parametrize("read", [size(1, 100), seconds(0, 60), integer(0, 9, "clips"), globs(1)])
def test_a_number_of_more_digits_than_python_writes_is_refused_like_others(read: Reader) -> None:
    assert message(read, 16**5000).startswith("it is ")


def test_tables_a_thousand_deep_are_refused_like_others() -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert message(globs(1), [deep]).startswith("it in the list is no file name pattern")
