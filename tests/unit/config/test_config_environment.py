from __future__ import annotations

import grp
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agent.config import Config, environment
from agent.config.environment import current_user

Problems = Callable[..., list[str]]
OrdinaryUser = Callable[[], AbstractContextManager[None]]

CLOSED = 0o700 if os.geteuid() == 0 else 0
"""A mode that denies access to the ordinary user of these tests, to files of root or of that user."""


@pytest.fixture
def device(open_folder: Path) -> Iterator[Path]:
    (open_folder / "card").mkdir()
    (open_folder / "spool").mkdir(mode=0o777)
    (open_folder / "spool").chmod(0o777)
    (open_folder / "ca.pem").write_text("")
    yield open_folder
    for path in open_folder.iterdir():
        path.chmod(0o755)


@pytest.fixture
def problems(device: Path, read: Callable[..., Config], ordinary_user: OrdinaryUser) -> Problems:
    """The problems of the device for an ordinary user, without the name of the configuration file."""

    def problems(after_delivery: str = "keep", spool: str = "spool") -> list[str]:
        config = read(
            f"""
            [api]
            region = "za"
            username = "fleet"
            ca_file = "{device}/ca.pem"
            [spool]
            directory = "{device}/{spool}"
            [[footage]]
            path = "{device}/card"
            after_delivery = "{after_delivery}"
            """
        )
        with ordinary_user():
            return [str(problem).removeprefix(f"{config.file}: ") for problem in environment.check(config)]

    return problems


@pytest.fixture
def user(ordinary_user: OrdinaryUser) -> str:
    with ordinary_user():
        return current_user()


def test_a_device_that_has_everything_has_no_problems(problems: Problems) -> None:
    assert problems() == []


def test_a_missing_card_is_reported(problems: Problems, device: Path) -> None:
    (device / "card").rmdir()
    assert problems() == [f"footage[0].path: {device}/card does not exist; mount the card, or correct the path"]


def test_a_file_instead_of_the_card_is_reported(problems: Problems, device: Path) -> None:
    (device / "card").rmdir()
    (device / "card").touch()
    assert problems() == [
        f"footage[0].path: {device}/card is not a directory; name the folder that the camera writes to"
    ]


def test_a_card_that_this_user_cannot_read_is_reported(problems: Problems, device: Path, user: str) -> None:
    (device / "card").chmod(CLOSED)
    assert problems() == [
        f"footage[0].path: {device}/card cannot be read by the user {user}; "
        f"allow it: sudo chmod a+rx {device}/card, or for a FAT card mount it with the option uid={user}"
    ]


def test_a_card_that_its_group_can_read_needs_the_user_in_that_group(
    problems: Problems, device: Path, user: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another group")
    group = next(group for group in grp.getgrall() if group.gr_gid not in {os.getegid(), *os.getgroups()})
    os.chown(device / "card", 0, group.gr_gid)
    (device / "card").chmod(0o750)
    assert problems() == [
        f"footage[0].path: {device}/card cannot be read by the user {user}; "
        f"join its group and restart the service: sudo usermod -aG {group.gr_name} {user}"
    ]
    os.chown(device / "card", 0, 4_000_001)
    assert problems()[0].endswith(f"sudo usermod -aG 4000001 {user}")


def test_a_card_that_this_user_cannot_delete_from_is_reported(problems: Problems, device: Path, user: str) -> None:
    (device / "card").chmod(0o555)
    assert problems(after_delivery="keep") == []
    assert problems(after_delivery="delete") == [
        f'footage[0].path: {device}/card cannot be changed by the user {user}, which after_delivery = "delete" needs; '
        f"allow it: sudo chmod a+rwx {device}/card, or for a FAT card mount it with the option uid={user}"
    ]


def test_a_card_below_an_inaccessible_folder_is_reported(
    problems: Problems, device: Path, user: str, read: Callable[..., Config]
) -> None:
    device.chmod(CLOSED)
    lines = problems()
    device.chmod(0o755)
    assert lines[0] == (
        f"footage[0].path: {device}/card cannot be reached by the user {user}; "
        "allow it with sudo chmod a+x on each folder above it"
    )


def test_an_impossible_folder_is_reported_with_the_error_of_the_system(read: Callable[..., Config]) -> None:
    name = "x" * 300
    config = read(f'api = {{ region = "za", username = "fleet" }}\n[[footage]]\npath = "/{name}"')
    assert f"footage[0].path: /{name} cannot be accessed: File name too long; check the card and the path" in str(
        environment.check(config)[0]
    )


def test_a_spool_that_the_service_can_create_is_no_problem(problems: Problems) -> None:
    assert problems(spool="spool/new") == []


def test_a_spool_that_cannot_be_created_is_reported(problems: Problems, device: Path, user: str) -> None:
    create = f"create it: sudo install -d -m 750 -o {user} {device}"
    assert problems(spool="missing/new") == [f"spool.directory: {device}/missing does not exist; {create}/missing/new"]
    (device / "spool").chmod(0o555)
    assert problems(spool="spool/new") == [
        f"spool.directory: {device}/spool cannot be written by the user {user}; {create}/spool/new"
    ]


def test_a_spool_that_cannot_be_written_is_reported(problems: Problems, device: Path, user: str) -> None:
    (device / "spool").chmod(0o555)
    assert problems() == [
        f"spool.directory: {device}/spool cannot be written by the user {user}; "
        f"make that user its owner: sudo chown -R {user} {device}/spool"
    ]


def test_a_file_instead_of_the_spool_is_reported(problems: Problems, device: Path) -> None:
    assert problems(spool="ca.pem") == [
        f"spool.directory: {device}/ca.pem is not a directory; name a directory that only the service uses"
    ]


def test_missing_certificates_are_reported(problems: Problems, device: Path, user: str) -> None:
    (device / "ca.pem").chmod(CLOSED)
    assert problems() == [
        f"api.ca_file: {device}/ca.pem cannot be read by the user {user}; allow it: sudo chmod a+r {device}/ca.pem"
    ]
    (device / "ca.pem").unlink()
    assert problems() == [
        f"api.ca_file: {device}/ca.pem does not exist; correct the path, or remove the line to use the certificates "
        "of the system"
    ]
    (device / "ca.pem").mkdir()
    assert problems() == [
        f"api.ca_file: {device}/ca.pem is not a regular file; name a file with certificates in PEM format"
    ]
