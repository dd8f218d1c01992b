from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.config import (
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    SpoolSettings,
    UploadSettings,
    Vehicle,
    default_file,
    load,
)

SMALLEST = """
[api]
region = "ke"
username = "fleet"
[[footage]]
path = "/media/card"
"""
REGIONS = (
    "au, bw, es, hk, id, ke, kh, me, mw, my, mz, na, ng, nz, ph, pl, pt, rw, sa, sg, sw, th, tz, vn, za, zm, znz, zw"
)

Read = Callable[..., Config]
ErrorsOf = Callable[..., list[str]]


def test_the_smallest_configuration_takes_every_default(read: Read, tmp_path: Path) -> None:
    config = read(SMALLEST)
    assert config.file == tmp_path / "config.toml"
    assert config.api.base_url == "https://fleetapi-ke.karooooo.com/rest"
    assert config.api.username == "fleet"
    assert config.api.password.reveal() == "hunter2"
    assert config.api.timezone == ZoneInfo("UTC")
    assert config.footage == (FootageFolder(path=Path("/media/card")),)
    assert config.vehicle == Vehicle()
    assert config.limits == Limits()
    assert config.conform == Conform()
    assert config.spool == SpoolSettings()
    assert config.upload == UploadSettings()
    assert config.log == LogSettings()


def test_every_key_reaches_its_field(read: Read, tmp_path: Path) -> None:
    config = read(
        """
        [api]
        base_url = "https://api.example/rest/"
        username = "fleet"
        ca_file = "ca.pem"
        proxy = "http://10.0.0.1:3128"
        timezone = "Africa/Nairobi"
        connect_timeout_seconds = 40
        stall_timeout_seconds = 90.5
        [vehicle]
        registration = "ABC1234X"
        camera = 3
        [[footage]]
        path = "card"
        recursive = false
        preset = "viofo"
        timezone = "Africa/Johannesburg"
        cameras = { F = 1, R = 2 }
        registration = "XYZ 9"
        include = ["*.mp4", "*.mov"]
        exclude = []
        settle_seconds = 3
        rescan_seconds = 30
        after_delivery = "delete"
        [[footage]]
        path = "/media/other"
        pattern = '(?P<camera>[FR])'
        [limits]
        max_bytes = "20 MB"
        max_seconds = 60
        [conform]
        enabled = false
        [spool]
        directory = "../spool"
        max_bytes = "1 GiB"
        min_free_bytes = 0
        remember_days = 7
        [upload]
        mode = "single"
        encoding = "multipart"
        batch_clips = 100
        batch_bytes = "100 MB"
        linger_seconds = 0
        attempts = 9
        webhook_url = "https://fleet.example.com/hook"
        confirm = "poll"
        [log]
        level = "debug"
        format = "json"
        """,
        presets=("auto", "viofo"),
    )
    assert config.api.base_url == "https://api.example/rest"
    assert config.api.ca_file == tmp_path / "ca.pem"
    assert config.api.proxy == "http://10.0.0.1:3128"
    assert config.api.timezone == ZoneInfo("Africa/Nairobi")
    assert (config.api.connect_timeout_seconds, config.api.stall_timeout_seconds) == (40.0, 90.5)
    assert config.vehicle == Vehicle(registration="ABC1234X", camera=3)
    assert config.footage == (
        FootageFolder(
            path=tmp_path / "card",
            recursive=False,
            preset="viofo",
            timezone=ZoneInfo("Africa/Johannesburg"),
            cameras={"F": 1, "R": 2},
            registration="XYZ 9",
            include=("*.mp4", "*.mov"),
            exclude=(),
            settle_seconds=3.0,
            rescan_seconds=30.0,
            after_delivery="delete",
        ),
        FootageFolder(path=Path("/media/other"), pattern=re.compile("(?P<camera>[FR])", re.IGNORECASE)),
    )
    assert config.limits == Limits(max_bytes=20_000_000, max_seconds=60)
    assert config.conform == Conform(enabled=False)
    assert config.spool == SpoolSettings(
        directory=tmp_path / "../spool", max_bytes=2**30, min_free_bytes=0, remember_days=7
    )
    assert config.upload == UploadSettings(
        mode="single",
        encoding="multipart",
        batch_clips=100,
        batch_bytes=100_000_000,
        linger_seconds=0.0,
        attempts=9,
        webhook_url="https://fleet.example.com/hook",
        confirm="poll",
    )
    assert config.log == LogSettings(level="debug", format="json")


def test_every_mistake_is_told_in_one_run(errors_of: ErrorsOf) -> None:
    told = errors_of(
        """
        [api]
        region = "zaf"
        username = "fleet"
        [limits]
        max_secnds = 60
        max_bytes = "1 TB"
        [[footage]]
        path = "/media/card"
        timezone = "Mars/Olympus"
        [[footage]]
        path = "/media/card"
        [log]
        level = 3
        """
    )
    assert [line.partition(": ")[0] for line in told] == [
        "api.region",
        "limits.max_secnds",
        "limits.max_bytes",
        "log.level",
        "footage[0].timezone",
        "footage[1].path",
    ]


def test_an_empty_file_names_everything_that_is_required(errors_of: ErrorsOf) -> None:
    assert errors_of("") == [
        "api.username: is missing; give the username of the Fleet API account",
        f"api.region: is missing; give the country of the account: {REGIONS}",
        'footage: is missing; add [[footage]] and below it path = "..." with the folder to watch',
    ]


def test_an_empty_list_of_footage_is_as_good_as_none(errors_of: ErrorsOf) -> None:
    assert errors_of('footage = []\napi = { region = "za", username = "fleet" }') == [
        'footage: is missing; add [[footage]] and below it path = "..." with the folder to watch'
    ]


def test_a_footage_folder_needs_a_path(errors_of: ErrorsOf) -> None:
    assert errors_of(f"{SMALLEST}[[footage]]\nrecursive = false") == [
        "footage[1].path: is missing; give the folder that the camera writes into"
    ]


def test_a_wrong_region_is_told_with_the_nearest_and_all_others(errors_of: ErrorsOf) -> None:
    assert errors_of(SMALLEST.replace('"ke"', '"KE"')) == [
        f'api.region: "KE" is not known here; did you mean "ke"? allowed: {REGIONS}'
    ]


def test_a_region_and_a_base_url_exclude_each_other(errors_of: ErrorsOf) -> None:
    text = SMALLEST.replace("username", 'base_url = "https://api.example"\nusername')
    assert errors_of(text) == ["api.base_url: stands beside region, which means an address too; remove one of the two"]


def test_a_preset_and_a_pattern_exclude_each_other(errors_of: ErrorsOf) -> None:
    text = f"{SMALLEST}preset = \"auto\"\npattern = '(?P<camera>.)'"
    assert errors_of(text) == [
        "footage[0].pattern: stands beside preset, which is a pattern too; remove one of the two"
    ]


def test_an_unknown_preset_is_told_with_the_nearest(errors_of: ErrorsOf) -> None:
    assert errors_of(f'{SMALLEST}preset = "viofoo"', presets=("auto", "blackvue", "viofo")) == [
        'footage[0].preset: "viofoo" is not known here; did you mean "viofo"? allowed: auto, blackvue, viofo'
    ]


def test_a_password_in_the_file_is_refused_without_showing_it(errors_of: ErrorsOf) -> None:
    text = SMALLEST.replace("username", 'password = "s3cret"\nusername')
    told = errors_of(text, environ={})
    assert told == [
        "api.password: a password must not stand in this file; put it into a file of its own that only the service "
        "can read (mode 600) and name that file in api.password_file, or hand it over as $VISION_INGEST_PASSWORD; "
        "then remove this line"
    ]


def test_a_password_file_beside_the_configuration_is_found(read: Read, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    (tmp_path / "secret").chmod(0o600)
    config = read(SMALLEST.replace("username", 'password_file = "secret"\nusername'))
    assert config.api.password.reveal() == "from the file"


def test_a_bad_password_file_is_one_mistake_among_the_others(errors_of: ErrorsOf, tmp_path: Path) -> None:
    told = errors_of(SMALLEST.replace("username", 'password_file = "secret"\nusername'))
    assert told == [
        f"api.password_file: {tmp_path}/secret does not exist; create it: sudo install -D -m 600 -o vision-ingest "
        f"/dev/stdin {tmp_path}/secret (then type the password, Enter and Ctrl-D)"
    ]
    assert errors_of(SMALLEST.replace("username", "password_file = 3\nusername"), environ={}) == [
        "api.password_file: 3 is a whole number; allowed is text in quotes"
    ]


def test_a_command_that_needs_no_password_reads_none(read: Read) -> None:
    text = SMALLEST.replace("username", 'password_file = "/nowhere"\nusername')
    assert read(text, with_password=False).api.password.reveal() == ""


def test_the_password_shows_in_no_repr(read: Read) -> None:
    assert "hunter2" not in repr(read(SMALLEST))


def test_a_relative_configuration_file_is_remembered_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.toml").write_text(SMALLEST.replace("/media/card", "card"))
    monkeypatch.chdir(tmp_path)
    config = load(Path("here.toml"), with_password=False)
    assert config.file == tmp_path / "here.toml"
    assert config.footage[0].path == tmp_path / "card"


def test_the_file_in_etc_is_the_default_if_it_exists(tmp_path: Path) -> None:
    in_etc = tmp_path / "config.toml"
    environ = {"VISION_INGEST_CONFIG": "/home/pi/mine.toml"}
    assert default_file(environ, system_file=in_etc) == Path("/home/pi/mine.toml")
    assert default_file({}, system_file=in_etc) == in_etc
    in_etc.touch()
    assert default_file(environ, system_file=in_etc) == in_etc


def test_more_folders_than_can_be_compared_with_each_other_are_refused(errors_of: ErrorsOf) -> None:
    folders = "".join(f'[[footage]]\npath = "/media/{number}"\n' for number in range(101))
    errors = errors_of('[api]\nregion = "za"\nusername = "u"\n' + folders)
    assert errors == ["footage: stands there 101 times; allowed are 100 folders"]
