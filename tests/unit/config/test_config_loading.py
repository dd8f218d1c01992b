from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.config import (
    ClockSettings,
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
from agent.config.environment import current_user
from agent.config.loading import read_document, read_documents
from agent.errors import ConfigError

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


def test_the_smallest_configuration_has_every_default(read: Read, tmp_path: Path) -> None:
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
        audio = "drop"
        reencode = true
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
        request_seconds = 20
        vehicles = 5000
        linger_seconds = 0
        attempts = 9
        webhook_url = "https://fleet.example.com/hook"
        confirm = "poll"
        [clock]
        trust = "always"
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
    assert config.conform == Conform(enabled=False, audio="drop", reencode=True)
    assert config.spool == SpoolSettings(
        directory=tmp_path / "../spool", max_bytes=2**30, min_free_bytes=0, remember_days=7
    )
    assert config.upload == UploadSettings(
        mode="single",
        encoding="multipart",
        batch_clips=100,
        batch_bytes=100_000_000,
        request_seconds=20.0,
        vehicles=5000,
        linger_seconds=0.0,
        attempts=9,
        webhook_url="https://fleet.example.com/hook",
        confirm="poll",
    )
    assert config.clock == ClockSettings(trust="always")
    assert config.log == LogSettings(level="debug", format="json")


def test_all_mistakes_are_reported_at_once(errors_of: ErrorsOf) -> None:
    reported = errors_of(
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
    assert [line.partition(": ")[0] for line in reported] == [
        "api.region",
        "limits.max_secnds",
        "limits.max_bytes",
        "log.level",
        "footage[0].timezone",
        "footage[1].path",
    ]


def test_an_empty_file_reports_every_required_key(errors_of: ErrorsOf) -> None:
    assert errors_of("") == [
        "api.username: is missing; set it to the username of the Fleet API account",
        f"api.region: is missing; set it to the country of the account: {REGIONS}",
        'footage: is missing; add [[footage]] and below it path = "..." with the folder to watch',
    ]


def test_an_empty_list_of_footage_counts_as_missing(errors_of: ErrorsOf) -> None:
    assert errors_of('footage = []\napi = { region = "za", username = "fleet" }') == [
        'footage: is missing; add [[footage]] and below it path = "..." with the folder to watch'
    ]


def test_a_footage_folder_needs_a_path(errors_of: ErrorsOf) -> None:
    assert errors_of(f"{SMALLEST}[[footage]]\nrecursive = false") == [
        "footage[1].path: is missing; set it to the folder that the camera writes to"
    ]


def test_an_unknown_region_is_reported_with_the_closest_match_and_all_others(errors_of: ErrorsOf) -> None:
    assert errors_of(SMALLEST.replace('"ke"', '"KE"')) == [
        f'api.region: "KE" is unknown; did you mean "ke"? allowed: {REGIONS}'
    ]


def test_a_region_and_a_base_url_exclude_each_other(errors_of: ErrorsOf) -> None:
    text = SMALLEST.replace("username", 'base_url = "https://api.example"\nusername')
    assert errors_of(text) == [
        "api.base_url: cannot be combined with region, which sets the URL too; remove one of the two"
    ]


def test_a_preset_and_a_pattern_exclude_each_other(errors_of: ErrorsOf) -> None:
    text = f"{SMALLEST}preset = \"auto\"\npattern = '(?P<camera>.)'"
    assert errors_of(text) == ["footage[0].pattern: cannot be combined with preset; remove one of the two"]


def test_an_unknown_preset_is_reported_with_the_closest_match(errors_of: ErrorsOf) -> None:
    assert errors_of(f'{SMALLEST}preset = "viofoo"', presets=("auto", "blackvue", "viofo")) == [
        'footage[0].preset: "viofoo" is unknown; did you mean "viofo"? allowed: auto, blackvue, viofo'
    ]


def test_a_password_in_the_file_is_refused_without_showing_it(errors_of: ErrorsOf) -> None:
    text = SMALLEST.replace("username", 'password = "s3cret"\nusername')
    reported = errors_of(text, environ={})
    assert reported == [
        "api.password: the password must not be in this file; put it into a file of its own that only the service "
        "can read (mode 600) and name that file in api.password_file, or set $VISION_INGEST_PASSWORD; "
        "then remove this line"
    ]


def test_a_password_file_beside_the_configuration_is_found(read: Read, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    (tmp_path / "secret").chmod(0o600)
    config = read(SMALLEST.replace("username", 'password_file = "secret"\nusername'))
    assert config.api.password.reveal() == "from the file"


def test_an_unusable_password_file_is_reported_like_other_mistakes(errors_of: ErrorsOf, tmp_path: Path) -> None:
    reported = errors_of(SMALLEST.replace("username", 'password_file = "secret"\nusername'))
    assert reported == [
        f"api.password_file: {tmp_path}/secret does not exist; create it: sudo install -D -m 600 -o vision-ingest "
        f"/dev/stdin {tmp_path}/secret (then type the password, Enter and Ctrl-D)"
    ]
    assert errors_of(SMALLEST.replace("username", "password_file = 3\nusername"), environ={}) == [
        "api.password_file: 3 is a whole number; allowed: text in quotes"
    ]


def test_a_command_that_needs_no_password_reads_none(read: Read) -> None:
    text = SMALLEST.replace("username", 'password_file = "/nowhere"\nusername')
    assert read(text, with_password=False).api.password.reveal() == ""


def test_the_password_shows_in_no_repr(read: Read) -> None:
    assert "hunter2" not in repr(read(SMALLEST))


def test_a_relative_configuration_file_becomes_an_absolute_path(
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


def test_more_than_100_footage_folders_are_refused(errors_of: ErrorsOf) -> None:
    folders = "".join(f'[[footage]]\npath = "/media/{number}"\n' for number in range(101))
    errors = errors_of('[api]\nregion = "za"\nusername = "u"\n' + folders)
    assert errors == ["footage: appears 101 times; allowed: at most 100 folders"]


def written(folder: Path, content: bytes) -> Path:
    file = folder / "config.toml"
    file.write_bytes(content)
    return file


def message(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(file)
    return str(caught.value).removeprefix(f"{file}: ")


def test_the_file_is_toml(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, b'[api]\nregion = "za"\n')) == {"api": {"region": "za"}}


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    assert read_document(written(tmp_path, b'\xef\xbb\xbf[api]\r\nregion = "za"\r\n')) == {"api": {"region": "za"}}


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"[api]\nregion = za\n", "line 2, column 10: Invalid value"),
        (b'[api]\nregion == "za"\n', "line 2, column 9: Invalid value"),
        (b'[api]\nregion = "za\n', "line 2, column 13: Illegal character '\\n'"),
        (b"[api]\nregion = 1\nregion = 2", "end of document: Cannot overwrite a value"),
    ],
)
def test_a_syntax_error_is_reported_with_line_and_column(tmp_path: Path, content: bytes, wrong: str) -> None:
    assert message(written(tmp_path, content)) == (
        f"{wrong}; correct it there: text needs quotes, the name of a section needs brackets"
    )


@pytest.mark.parametrize("content", [b"a = " + b"[" * 5000, b"a = " + b"1" * 5000])
def test_toml_that_the_parser_cannot_handle_is_refused(tmp_path: Path, content: bytes) -> None:
    assert message(written(tmp_path, content)).endswith("; write it simpler")


def test_a_missing_file_is_reported_with_the_command_that_creates_it(tmp_path: Path) -> None:
    file = tmp_path / "my config.toml"
    assert message(file) == (
        "the file: does not exist; create it from the example and edit it: "
        f"sudo install -D -m 644 /usr/share/doc/vision-ingest/examples/vision-ingest.toml '{file}'"
    )


def test_a_directory_is_not_a_configuration(tmp_path: Path) -> None:
    assert message(tmp_path) == "the file: is a directory; name the file in it: --config FILE"


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    assert message(written(tmp_path, b"# caf\xe9\n")) == ("the file: is not UTF-8 text (byte 6); save it as UTF-8")


def test_an_impossible_path_is_reported_with_the_error_of_the_system(tmp_path: Path) -> None:
    assert message(tmp_path / ("x" * 300)) == (
        "the file: cannot be read: File name too long; check the path and the disk"
    )


def test_an_unreadable_file_is_reported_with_the_command_that_allows_reading(
    open_folder: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    file = written(open_folder, b"")
    file.chmod(0o600 if os.geteuid() == 0 else 0)
    with ordinary_user():
        user = current_user()
        reported = message(file)
    assert reported == f"the file: cannot be read by the user {user}; allow it: sudo chmod a+r {file}"


def drop_in(file: Path, name: str, content: str) -> Path:
    folder = file.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def test_drop_ins_override_the_file_and_earlier_drop_ins(tmp_path: Path) -> None:
    file = written(tmp_path, b'[api]\nregion = "za"\nusername = "a"\n')
    last = drop_in(file, "20.toml", '[api]\nusername = "c"\n')
    drop_in(file, "10.toml", '[api]\nusername = "b"\ntimezone = "UTC"\n')
    document = read_documents(file)
    assert document.tables == {"api": {"region": "za", "username": "c", "timezone": "UTC"}}
    assert document.origins["api.username"] == last
    assert document.origins["api.region"] == file


def test_the_folders_of_all_drop_ins_are_watched(tmp_path: Path) -> None:
    file = written(tmp_path, b'[[footage]]\npath = "/a"\n')
    second = drop_in(file, "more.toml", '[[footage]]\npath = "/b"\n')
    document = read_documents(file)
    assert document.tables == {"footage": [{"path": "/a"}, {"path": "/b"}]}
    assert document.origins["footage[1]"] == second


def test_only_toml_files_that_are_not_hidden_are_drop_ins(tmp_path: Path) -> None:
    file = written(tmp_path, b"")
    for name in (".hidden.toml", "README", "setup.toml~", "setup.toml.dpkg-old"):
        drop_in(file, name, "this is no TOML")
    assert read_documents(file).tables == {}


def test_a_mistake_names_its_drop_in(tmp_path: Path) -> None:
    file = written(tmp_path, b'[api]\nregion = "za"\nusername = "a"\n[[footage]]\npath = "/a"\n')
    wrong = drop_in(file, "vehicle.toml", '[vehicle]\ncamera = 999\n[[footage]]\npath = "/b"\nsettle_seconds = -1\n')
    with pytest.raises(ConfigError) as caught:
        load(file, environ={"VISION_INGEST_PASSWORD": "x"})
    assert {(problem.file, problem.key) for problem in caught.value.problems} == {
        (str(wrong), "vehicle.camera"),
        (str(wrong), "footage[1].settle_seconds"),
    }


def test_a_file_of_unlimited_size_is_not_read_to_its_end() -> None:
    assert "is larger than 262,144 bytes" in message(Path("/dev/zero"))


API = 'api = { region = "za", username = "fleet" }\n'


def footage(*folders: str) -> str:
    return API + "".join(f'[[footage]]\npath = "{folder}"\n' for folder in folders)


def test_sibling_folders_are_accepted(read: Read) -> None:
    config = read(footage("/media/card/front", "/media/card/frontal", "/media/card/rear"))
    assert len(config.footage) == 3


def test_the_same_folder_twice_is_refused(errors_of: ErrorsOf, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "card")
    expected = ["footage[1].path: is the same folder as footage[0]; remove one of the two"]
    assert errors_of(footage("card", f"{tmp_path}/card/")) == expected
    assert errors_of(footage("card", "link")) == expected
    assert errors_of(footage("card", "other/../card")) == expected


def test_a_folder_inside_another_is_refused(errors_of: ErrorsOf) -> None:
    reported = (
        "is inside footage[{outer}] (/media/card): its files would be taken twice; "
        "remove one of the two, or set recursive = false in footage[{outer}]"
    )
    assert errors_of(footage("/media/card", "/media/card/DCIM")) == ["footage[1].path: " + reported.format(outer=0)]
    assert errors_of(footage("/media/card/DCIM", "/media/card")) == ["footage[0].path: " + reported.format(outer=1)]


def test_a_folder_inside_one_that_is_not_recursive_is_accepted(read: Read) -> None:
    text = f'{footage("/media/card")}recursive = false\n[[footage]]\npath = "/media/card/DCIM"'
    assert len(read(text).footage) == 2


@pytest.mark.parametrize("directory", ["/media/card", "/media/card/spool"])
def test_a_spool_inside_the_footage_is_refused(errors_of: ErrorsOf, directory: str) -> None:
    assert errors_of(f'{footage("/media/card")}[spool]\ndirectory = "{directory}"') == [
        f"spool.directory: {directory} is inside footage[0] (/media/card): its clips would be taken again; "
        "choose a directory outside of all footage folders"
    ]


def test_footage_inside_the_spool_is_refused(errors_of: ErrorsOf) -> None:
    assert errors_of(footage("/var/lib/vision-ingest/footage")) == [
        "footage[0].path: /var/lib/vision-ingest/footage is inside the spool (/var/lib/vision-ingest), "
        "which is only for the service itself; choose a folder outside of the spool"
    ]


def test_the_largest_clip_must_fit_into_a_batch_and_into_the_spool(errors_of: ErrorsOf) -> None:
    assert errors_of(f'{footage("/c")}[upload]\nbatch_bytes = "40 MB"\n[spool]\nmax_bytes = "49 MB"') == [
        "upload.batch_bytes: 40000000 is less than the largest clip; allowed: at least limits.max_bytes, 50000000",
        "spool.max_bytes: 49000000 is less than the largest clip; allowed: at least limits.max_bytes, 50000000",
    ]


def test_small_batches_are_accepted_for_small_clips(read: Read) -> None:
    config = read(f'{footage("/c")}[upload]\nbatch_bytes = "5 MB"\n[limits]\nmax_bytes = "5 MB"')
    assert config.upload.batch_bytes == config.limits.max_bytes == 5_000_000
