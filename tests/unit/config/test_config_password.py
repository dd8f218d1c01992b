from __future__ import annotations

import base64
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agent.config import Config, secrets_of
from agent.config.environment import current_user
from agent.config.password import read_password
from agent.config.values import WrongValueError

OrdinaryUser = Callable[[], AbstractContextManager[None]]


def password_file(folder: Path, content: bytes = b"hunter2\n", mode: int = 0o600) -> Path:
    file = folder / "api-password"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def message(file: Path | None, **environ: str) -> str:
    with pytest.raises(WrongValueError) as caught:
        read_password(file, environ)
    return f"{caught.value.wrong}; {caught.value.allowed}"


def test_the_systemd_credential_comes_first(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    password_file(tmp_path / "credentials", b"from systemd\n", mode=0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"), "VISION_INGEST_PASSWORD": "from environ"}
    assert read_password(password_file(tmp_path), environ).reveal() == "from systemd"


def test_the_password_file_comes_before_the_environment(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "empty"), "VISION_INGEST_PASSWORD": "from environ"}
    assert read_password(password_file(tmp_path), environ).reveal() == "hunter2"
    assert read_password(None, environ).reveal() == "from environ"


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" hunter2 \n", " hunter2 "),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_only_the_final_line_end_is_not_part_of_the_password(tmp_path: Path, content: bytes, password: str) -> None:
    assert read_password(password_file(tmp_path, content), {}).reveal() == password


def test_a_missing_password_is_reported_with_the_command_that_stores_one() -> None:
    assert message(None) == (
        "there is no password; write it into a file and name that file here: "
        "sudo install -D -m 600 -o vision-ingest /dev/stdin /etc/vision-ingest/api-password "
        "(then type the password, Enter and Ctrl-D)"
    )


def test_a_missing_password_file_is_reported_with_the_command_that_creates_it(tmp_path: Path) -> None:
    file = tmp_path / "my password"
    assert message(file) == (
        f"{file} does not exist; create it: sudo install -D -m 600 -o vision-ingest /dev/stdin '{file}' "
        "(then type the password, Enter and Ctrl-D)"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_password_file_that_others_can_access_is_refused(tmp_path: Path, mode: int) -> None:
    file = password_file(tmp_path, mode=mode)
    assert message(file) == f"other users can access {file} (mode {mode:o}); restrict it: sudo chmod 600 {file}"


def test_a_directory_is_not_a_password_file(tmp_path: Path) -> None:
    assert message(tmp_path) == f"{tmp_path} is a directory; name the file in it that contains the password"


def test_a_pipe_is_refused_as_a_password_file_without_waiting_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert message(pipe) == f"{pipe} is not a regular file; name a file that contains the password"


def test_a_password_file_of_another_user_is_reported_with_what_to_do(
    open_folder: Path, ordinary_user: OrdinaryUser
) -> None:
    file = password_file(open_folder, mode=0o600 if os.geteuid() == 0 else 0)
    with ordinary_user():
        user = current_user()
        reported = message(file)
    assert reported == (
        f"{file} cannot be read by the user {user}; run this command with sudo, or make the service its owner: "
        f"sudo chown vision-ingest {file}"
    )


def test_a_password_file_in_an_inaccessible_folder_is_reported_the_same_way(
    open_folder: Path, ordinary_user: OrdinaryUser
) -> None:
    file = password_file(open_folder)
    open_folder.chmod(0o600 if os.geteuid() == 0 else 0)
    with ordinary_user():
        reported = message(file)
    open_folder.chmod(0o755)
    assert reported.startswith(f"{file} cannot be read by the user ")


def test_an_impossible_password_file_is_reported_with_the_error_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 300)
    assert message(file) == f"{file} cannot be read: File name too long; check the path and the disk"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"fleet\nhunter2\n", "has more than one line"),
        (b"hunter2\n\n", "has more than one line"),
        (b"hun\0ter2", "has more than one line"),
        (b"hunter\xff", "is not UTF-8 text"),
    ],
)
def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes, wrong: str) -> None:
    file = password_file(tmp_path, content)
    assert message(file) == f"{file} {wrong}; allowed: the password in one line and nothing else"


def test_an_empty_variable_is_not_a_password() -> None:
    assert message(None, VISION_INGEST_PASSWORD="") == (
        "$VISION_INGEST_PASSWORD is empty; allowed: the password in one line and nothing else"
    )


def test_an_empty_credential_does_not_fall_back_to_another_password(tmp_path: Path) -> None:
    credential = password_file(tmp_path, b"\n")
    assert message(None, CREDENTIALS_DIRECTORY=str(tmp_path), VISION_INGEST_PASSWORD="hunter2") == (
        f"{credential} is empty; allowed: the password in one line and nothing else"
    )


def test_a_user_without_a_name_is_shown_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    assert current_user() == "4000001"


def test_the_secrets_are_the_passwords_and_the_headers_made_of_them(
    read: Callable[..., Config],
) -> None:
    config = read(
        """
        [api]
        region = "za"
        username = "fleet"
        proxy = "http://truck:p%40ss@10.0.0.1:3128"
        [[footage]]
        path = "/media/card"
        """,
        environ={"VISION_INGEST_PASSWORD": "pässwörd"},
    )
    assert {secret.reveal() for secret in secrets_of(config)} == {
        "pässwörd",
        base64.b64encode("fleet:pässwörd".encode()).decode(),
        base64.b64encode("fleet:pässwörd".encode("latin-1")).decode(),
        "p@ss",
        base64.b64encode(b"truck:p@ss").decode(),
    }


def test_a_configuration_loaded_without_the_password_has_no_secrets(read: Callable[..., Config]) -> None:
    config = read(
        """
        [api]
        region = "za"
        username = "fleet"
        [[footage]]
        path = "/media/card"
        """,
        with_password=False,
    )
    assert secrets_of(config) == ()
