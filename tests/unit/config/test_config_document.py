from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agent.config import load
from agent.config.environment import current_user
from agent.config.loading import read_document, read_documents
from agent.errors import ConfigError


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


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
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
def test_what_is_no_toml_is_told_with_line_and_column(tmp_path: Path, content: bytes, wrong: str) -> None:
    assert message(written(tmp_path, content)) == (
        f"{wrong}; correct it there: text stands in quotes, a section in brackets"
    )


@pytest.mark.parametrize("content", [b"a = " + b"[" * 5000, b"a = " + b"1" * 5000])
def test_toml_that_no_parser_takes_is_refused_too(tmp_path: Path, content: bytes) -> None:
    assert message(written(tmp_path, content)).endswith("; write it simpler")


def test_a_missing_file_is_told_with_the_command_that_creates_it(tmp_path: Path) -> None:
    file = tmp_path / "my config.toml"
    assert message(file) == (
        "the file: does not exist; create it from the example and edit it: "
        f"sudo install -D -m 644 /usr/share/doc/vision-ingest/examples/vision-ingest.toml '{file}'"
    )


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    assert message(tmp_path) == "the file: is a directory; name the file in it: --config FILE"


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    assert message(written(tmp_path, b"# caf\xe9\n")) == (
        "the file: is not UTF-8 text (byte 6); save it as UTF-8 in the editor"
    )


def test_an_impossible_path_is_told_in_the_words_of_the_system(tmp_path: Path) -> None:
    assert message(tmp_path / ("x" * 300)) == (
        "the file: cannot be read: File name too long; check the path and the disk"
    )


def test_a_file_that_this_user_may_not_read_is_told_with_the_command_that_allows_it(
    open_folder: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    file = written(open_folder, b"")
    file.chmod(0o600 if os.geteuid() == 0 else 0)
    with ordinary_user():
        user = current_user()
        told = message(file)
    assert told == f"the file: may not be read by the user {user}; allow it: sudo chmod a+r {file}"


def drop_in(file: Path, name: str, content: str) -> Path:
    folder = file.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def test_drop_ins_go_before_the_file_and_each_other_in_order_of_their_names(tmp_path: Path) -> None:
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


def test_a_mistake_names_the_drop_in_that_it_stands_in(tmp_path: Path) -> None:
    file = written(tmp_path, b'[api]\nregion = "za"\nusername = "a"\n[[footage]]\npath = "/a"\n')
    wrong = drop_in(file, "vehicle.toml", '[vehicle]\ncamera = 999\n[[footage]]\npath = "/b"\nsettle_seconds = -1\n')
    with pytest.raises(ConfigError) as caught:
        load(file, environ={"VISION_INGEST_PASSWORD": "x"})
    assert {(problem.file, problem.key) for problem in caught.value.problems} == {
        (str(wrong), "vehicle.camera"),
        (str(wrong), "footage[1].settle_seconds"),
    }


def test_a_file_that_cannot_be_a_configuration_is_not_read_to_its_end() -> None:
    assert "is larger than 262,144 bytes" in message(Path("/dev/zero"))
