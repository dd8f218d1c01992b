from __future__ import annotations

import json
from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import schema
from agent.config.values import (
    Reader,
    WrongValueError,
    as_toml,
    base_url,
    cameras,
    closest_match,
    flag,
    globs,
    integer,
    one_of,
    path,
    proxy,
    seconds,
    size,
    text,
    username,
    webhook_url,
    zone,
)

SIZE = size(1, 50_000_000)
SIZE_ALLOWED = 'allowed: 1 byte to 50 MB, written as 8000000, "8 MB" or "8 MiB"'
CLIPS = integer(1, 100)
CLIPS_ALLOWED = "allowed: a whole number from 1 to 100"
WAIT = seconds(0.1, 300)
WAIT_ALLOWED = "allowed: a number of seconds from 0.1 to 300"
ZONE_ALLOWED = 'allowed: an IANA time zone such as "Africa/Johannesburg" or "UTC"'
CAMERA_ALLOWED = "allowed: a whole number from 0 to 255"

toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
readers = st.sampled_from(
    [read for keys in schema(("auto", "viofo")).values() for read in keys.values()],
)


def message(read: Reader, value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        read(value)
    return f"{caught.value.wrong}; {caught.value.allowed}"


@given(readers, toml_values)
def test_any_value_is_either_read_or_refused_in_one_printable_line(read: Reader, value: object) -> None:
    message = ""
    try:
        read(value)
    except WrongValueError as error:
        message = str(error)
    assert message.isprintable()


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
        ("50 MiB", '"50 MiB" is out of range'),
        (0, "0 is out of range"),
        (-5, "-5 is out of range"),
        ("much", '"much" is not a size'),
        ("5 XB", '"5 XB" is not a size'),
        (True, "true is true or false"),
        (1.5, "1.5 is a number"),
        ([1], "it is a list"),
    ],
)
def test_an_invalid_size_is_refused_with_what_is_allowed(written: object, wrong: str) -> None:
    assert message(SIZE, written) == f"{wrong}; {SIZE_ALLOWED}"


def test_the_limits_of_a_size_are_shown_in_the_largest_whole_unit() -> None:
    assert "allowed: 0 bytes to 8 GB," in message(size(0, 8_000_000_000), -1)
    assert "allowed: 1500 bytes to 100 TB," in message(size(1500, 100 * 10**12), 1)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (0, "0 is out of range"),
        (101, "101 is out of range"),
        (True, "true is true or false"),
        (20.0, "20.0 is a number"),
        ("20", '"20" is text in quotes'),
        (date(2026, 1, 1), '"2026-01-01" is a date or a time'),
        ({"a": "secret"}, "it is a table"),
    ],
)
def test_an_integer_must_be_an_integer_in_its_range(written: object, wrong: str) -> None:
    assert message(CLIPS, written) == f"{wrong}; {CLIPS_ALLOWED}"


@pytest.mark.parametrize("written", [1, 100])
def test_the_limits_of_a_range_are_allowed(written: int) -> None:
    assert CLIPS(written) == written


def test_seconds_may_be_whole_or_fractions_and_become_a_float() -> None:
    assert repr(WAIT(3)) == "3.0"
    assert WAIT(0.1) == 0.1


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (0, "0 is out of range"),
        (300.5, "300.5 is out of range"),
        (float("nan"), "NaN is out of range"),
        (float("inf"), "Infinity is out of range"),
        (False, "false is true or false"),
        ("30", '"30" is text in quotes'),
    ],
)
def test_seconds_must_be_a_number_in_range(written: object, wrong: str) -> None:
    assert message(WAIT, written) == f"{wrong}; {WAIT_ALLOWED}"


def test_a_flag_is_neither_a_number_nor_text() -> None:
    assert flag(True) is True
    assert message(flag, 1) == "1 is a whole number; allowed: true or false, without quotes"
    assert message(flag, "true") == '"true" is text in quotes; allowed: true or false, without quotes'


def test_an_unknown_word_is_refused_with_the_closest_match() -> None:
    mode = one_of(("bulk", "single"))
    assert mode("bulk") == "bulk"
    assert message(mode, "Bulk") == '"Bulk" is unknown; did you mean "bulk"? allowed: bulk, single'
    assert message(mode, "xyz") == '"xyz" is unknown; allowed: bulk, single'
    assert message(mode, 1) == "1 is a whole number; allowed: bulk, single (in quotes)"


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
def test_an_unknown_time_zone_is_refused_with_similar_ones(written: str, expected: str) -> None:
    assert message(zone, written) == f"there is no time zone {json.dumps(written)}; {expected}"


def test_a_zone_with_an_inverted_sign_is_never_suggested() -> None:
    assert message(zone, "GMT+2") == f'there is no time zone "GMT+2"; {ZONE_ALLOWED}'


@pytest.mark.parametrize("written", ["Africa", "../../etc/passwd", "a\0b", "x" * 5000])
def test_a_name_that_cannot_be_a_zone_is_refused(written: str) -> None:
    assert message(zone, written).startswith("there is no time zone ")


def test_a_time_zone_is_text() -> None:
    assert message(zone, 2) == (
        '2 is a whole number; allowed: an IANA time zone such as "Africa/Johannesburg" or "UTC"'
    )


def test_a_path_in_a_home_directory_is_refused() -> None:
    assert message(path, "~/card") == (
        '"~/card" starts with ~; write the whole path: the service has no home directory'
    )


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("", "it is empty; give it a value, or remove the line"),
        ("  ", "it is empty; give it a value, or remove the line"),
        (" ABC", '" ABC" has an invisible character, or a space at an end; allowed: text without them'),
        ("A\u202eB", '"A\\u202eB" has an invisible character, or a space at an end; allowed: text without them'),
        ("A\0B", '"A\\u0000B" has an invisible character, or a space at an end; allowed: text without them'),
        (7, "7 is a whole number; allowed: text in quotes"),
    ],
)
def test_text_has_no_invisible_characters_and_no_space_at_its_ends(written: object, wrong: str) -> None:
    assert message(text, written) == wrong


def test_a_username_with_a_colon_is_refused_without_showing_it() -> None:
    assert username("fleet") == "fleet"
    assert message(username, "fleet:hunter2") == (
        "it contains a colon; allowed: the username alone (in HTTP Basic, a colon starts the password)"
    )


def test_file_name_patterns_are_a_list_of_text() -> None:
    allowed = 'allowed: a list of file name patterns, such as ["*.mp4", "*.mov"]'
    include = globs(min_length=1)
    assert include(["*.mp4"]) == ("*.mp4",)
    assert globs(min_length=0)([]) == ()
    assert message(include, "*.mp4") == f'"*.mp4" is text in quotes; {allowed}'
    assert message(include, [1]) == f"1 in the list is not a file name pattern; {allowed}"
    assert message(include, []) == f"the list is empty: no file would match; {allowed}"


def test_cameras_are_channels_by_name() -> None:
    assert cameras({"F": 1, "rear view": 2}) == {"F": 1, "rear view": 2}
    assert message(cameras, {"F": True}) == f'camera "F": true is true or false; {CAMERA_ALLOWED}'
    assert message(cameras, {"F": 256}) == f'camera "F": 256 is out of range; {CAMERA_ALLOWED}'
    assert message(cameras, 1) == (
        "1 is a whole number; allowed: a table of names and channels, such as { F = 1, R = 2 }"
    )


def test_a_long_value_is_cut_in_messages() -> None:
    assert as_toml("x" * 500) == f'"{"x" * 56}...'


def test_the_closest_match_ignores_case() -> None:
    assert closest_match("ZA", ["za", "zm"]) == "za"
    assert closest_match("batch_clip", ["batch_clips", "batch_bytes"]) == "batch_clips"
    assert closest_match("qqq", ["za", "zm"]) is None


@pytest.mark.parametrize("written", ["9" * 5000 + " GB", "1." + "9" * 5000 + " GB", "٣ GB"])
def test_a_size_of_thousands_of_digits_is_refused(written: str) -> None:
    assert "is not a size" in message(size(1, 100), written)


@pytest.mark.parametrize("read", [size(1, 100), seconds(0, 60), integer(0, 9), globs(1)])
def test_an_integer_with_more_digits_than_python_prints_is_refused(read: Reader) -> None:
    assert message(read, 16**5000).startswith("it is ")


def test_tables_nested_a_thousand_deep_are_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert message(globs(1), [deep]).startswith("it in the list is not a file name pattern")


BASE_URL_ALLOWED = 'allowed: a URL such as "https://fleetapi-za.cartrack.com/rest"'
PROXY_ALLOWED = 'allowed: an HTTP proxy such as "http://10.0.0.1:3128"'
WEBHOOK_ALLOWED = 'allowed: a URL such as "https://fleet.example.com/vision-results"'


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://fleetapi-za.cartrack.com/rest/", "https://fleetapi-za.cartrack.com/rest"),
        ("https://bench.example:8443/rest", "https://bench.example:8443/rest"),
        ("http://127.0.0.1:8000/rest", "http://127.0.0.1:8000/rest"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_the_base_url_is_https_or_on_this_machine(written: str, url: str) -> None:
    assert base_url(written) == url


@pytest.mark.parametrize("url", ["http://fleetapi-za.cartrack.com/rest", "http://192.168.1.4", "http://localhost.evil"])
def test_a_base_url_without_encryption_is_refused(url: str) -> None:
    assert message(base_url, url) == (
        f'"{url}" is not encrypted: others could read the password; '
        "write https:// (http:// is only for this machine itself, such as http://127.0.0.1:8000)"
    )


@pytest.mark.parametrize(
    "url",
    [
        "fleetapi-za.cartrack.com",
        "ftp://a.example",
        "https:///rest",
        "https://a.example:99999",
        "https://a.example:0",
        "https://a.example:port",
        "https://a .example",
        " https://a.example",
        "https://[::1",
    ],
)
def test_text_that_is_not_a_url_is_refused(url: str) -> None:
    assert message(base_url, url) == f'"{url}" is not an http:// or https:// URL; {BASE_URL_ALLOWED}'


def test_a_base_url_has_no_username_query_or_fragment() -> None:
    for url, shown in {
        "https://fleet:hunter2@a.example": "https://...@a.example",
        "https://a.example/rest?x=1": "https://a.example/rest?x=1",
        "https://a.example/rest#x": "https://a.example/rest#x",
    }.items():
        assert message(base_url, url) == (f'"{shown}" contains a username, ? or #; {BASE_URL_ALLOWED}, without them')


def test_a_proxy_may_contain_a_username_and_a_password() -> None:
    assert proxy("http://fleet:hunter2@10.0.0.1:3128") == "http://fleet:hunter2@10.0.0.1:3128"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("10.0.0.1:3128", "10.0.0.1:3128"),
        ("socks5://10.0.0.1:1080", "socks5://10.0.0.1:1080"),
        ("fleet:hunter2@10.0.0.1:3128", "...@10.0.0.1:3128"),
        ("http://fleet:hun/ter2@10.0.0.1", "http://...@10.0.0.1"),
        ("http://fleet:hun#ter2@10.0.0.1", "http://...@10.0.0.1"),
        ("http://fleet:hun@ter2@10.0.0.1:x", "http://...@10.0.0.1:x"),
        ("http://fleet:hunter2\n@10.0.0.1", "http://...@10.0.0.1"),
        (" http://fleet:hunter2@10.0.0.1", "...@10.0.0.1"),
    ],
)
def test_an_invalid_proxy_is_reported_without_its_password(url: str, shown: str) -> None:
    assert message(proxy, url) == f'"{shown}" is not an http:// or https:// URL; {PROXY_ALLOWED}'


def test_a_webhook_url_is_a_url() -> None:
    assert webhook_url("https://fleet.example.com/results?key=1") == "https://fleet.example.com/results?key=1"
    assert message(webhook_url, "fleet.example.com") == (
        f'"fleet.example.com" is not an http:// or https:// URL; {WEBHOOK_ALLOWED}'
    )
