from __future__ import annotations

from collections.abc import Callable

import pytest

API = 'api = { region = "za", username = "fleet" }\n'
FOOTAGE = '[[footage]]\npath = "/media/card"\n'
ALL_SECTIONS = "allowed: [api], [vehicle], [[footage]], [limits], [conform], [spool], [upload], [clock], [log]"
ALL_UPLOAD = (
    "allowed: mode, encoding, batch_clips, batch_bytes, request_seconds, vehicles, linger_seconds, attempts, "
    "webhook_url, confirm"
)

ErrorsOf = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[uplaod]", f'uplaod: there is no section [uplaod]; did you mean "upload"? {ALL_SECTIONS}'),
        ("[[zzz]]", f"zzz: there is no section [zzz]; {ALL_SECTIONS}"),
        ("['a b']", f'"a b": there is no section ["a b"]; {ALL_SECTIONS}'),
    ],
)
def test_an_unknown_section_is_reported_with_the_closest_match(errors_of: ErrorsOf, text: str, expected: str) -> None:
    assert errors_of(f"{API}{FOOTAGE}{text}\nx = 1") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_clip = 5", f'upload.batch_clip: there is no such key; did you mean "batch_clips"? {ALL_UPLOAD}'),
        ("zzz = 5", f"upload.zzz: there is no such key; {ALL_UPLOAD}"),
        ('"\\u001b[31m" = 5', f'upload."\\u001b[31m": there is no such key; {ALL_UPLOAD}'),
        ("remember_days = 5", "upload.remember_days: there is no such key; move it below [spool]"),
        ('timezone = "UTC"', "upload.timezone: there is no such key; move it below [api] or [[footage]]"),
    ],
)
def test_an_unknown_key_is_reported_with_the_closest_match_or_its_section(
    errors_of: ErrorsOf, text: str, expected: str
) -> None:
    assert errors_of(f"{API}{FOOTAGE}[upload]\n{text}") == [expected]


def test_a_key_outside_of_every_section_is_reported_with_its_section(errors_of: ErrorsOf) -> None:
    assert errors_of(f'registration = "ABC1234X"\nzzz = 1\n{API}{FOOTAGE}') == [
        "registration: is not in a section; move it below [vehicle] or [[footage]]",
        "zzz: is not in a section; remove it, or move it below the right section: "
        "[api], [vehicle], [[footage]], [limits], [conform], [spool], [upload], [clock], [log]",
    ]


def test_the_suggestion_for_a_misspelled_password_is_never_a_password_key(errors_of: ErrorsOf) -> None:
    [message] = errors_of(f'[api]\nregion = "za"\nusername = "fleet"\npassw0rd = "hunter2"\n{FOOTAGE}')
    assert message.startswith('api.passw0rd: there is no such key; did you mean "password_file"? allowed: region, ')
    assert "hunter2" not in message


def test_a_password_in_a_wrong_section_is_not_suggested_to_move_within_the_file(errors_of: ErrorsOf) -> None:
    allowed = "the password must not be in this file: api.password_file names the file that contains it"
    assert errors_of(f'password = "s3cret"\n{API}{FOOTAGE}[vehicle]\npassword = "s3cret"') == [
        f"password: is not in a section; {allowed}",
        f"vehicle.password: there is no such key; {allowed}",
    ]


@pytest.mark.parametrize("text", ["limits = 3", "limits = []", "[[limits]]\nmax_seconds = 60"])
def test_a_section_in_the_wrong_brackets_is_reported(errors_of: ErrorsOf, text: str) -> None:
    limits = f"{text}\n"
    assert errors_of(limits + API + FOOTAGE if "[[" not in limits else API + FOOTAGE + limits) == [
        "limits: is not a section; write [limits] on a line of its own, with single brackets"
    ]


@pytest.mark.parametrize("text", ["footage = 3", '[footage]\npath = "/media/card"', "footage = [1]"])
def test_footage_without_double_brackets_is_reported_once(errors_of: ErrorsOf, text: str) -> None:
    assert errors_of(API + text) == [
        "footage: is not a list of sections; write [[footage]] on a line of its own, with double brackets"
    ]


def test_the_keys_of_a_section_in_wrong_brackets_are_read_nevertheless(errors_of: ErrorsOf) -> None:
    assert errors_of(f"{API}{FOOTAGE}[[limits]]\nmax_seconds = 301") == [
        "limits: is not a section; write [limits] on a line of its own, with single brackets",
        "limits.max_seconds: 301 is out of range; allowed: a whole number from 1 to 300",
    ]
