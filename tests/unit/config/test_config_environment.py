from __future__ import annotations

import grp
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from agent.config import Config, environment
from agent.config.environment import current_user

OrdinaryUser = Callable[[], AbstractContextManager[None]]

CLOSED = 0o700 if os.geteuid() == 0 else 0
"""Permissions that stop the ordinary user of these tests: of root's files, or of one's own."""


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
def told(device: Path, read: Callable[..., Config], ordinary_user: OrdinaryUser) -> Callable[..., list[str]]:
    """What is not in order on the device for an ordinary user, without the name of the configuration file."""

    def told(after_delivery: str = "keep", spool: str = "spool") -> list[str]:
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

    return told


@pytest.fixture
def user(ordinary_user: OrdinaryUser) -> str:
    with ordinary_user():
        return current_user()


def test_a_device_that_has_everything_is_in_order(told: Callable[..., list[str]]) -> None:
    assert told() == []


def test_a_missing_card_is_told(told: Callable[..., list[str]], device: Path) -> None:
    (device / "card").rmdir()
    assert told() == [f"footage[0].path: {device}/card does not exist; mount the card, or correct the path"]


def test_a_file_in_the_place_of_the_card_is_told(told: Callable[..., list[str]], device: Path) -> None:
    (device / "card").rmdir()
    (device / "card").touch()
    assert told() == [f"footage[0].path: {device}/card is not a directory; name the folder that the camera writes into"]


def test_a_card_that_is_closed_to_this_user_is_told(told: Callable[..., list[str]], device: Path, user: str) -> None:
    (device / "card").chmod(CLOSED)
    assert told() == [
        f"footage[0].path: {device}/card may not be read by the user {user}; "
        f"allow it: sudo chmod a+rx {device}/card, or for a FAT card mount it with the option uid={user}"
    ]


def test_a_card_whose_group_may_read_it_is_repaired_by_joining_the_group(
    told: Callable[..., list[str]], device: Path, user: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another group")
    group = next(group for group in grp.getgrall() if group.gr_gid not in {os.getegid(), *os.getgroups()})
    os.chown(device / "card", 0, group.gr_gid)
    (device / "card").chmod(0o750)
    assert told() == [
        f"footage[0].path: {device}/card may not be read by the user {user}; "
        f"join its group and restart the service: sudo usermod -aG {group.gr_name} {user}"
    ]
    os.chown(device / "card", 0, 4_000_001)
    assert told()[0].endswith(f"sudo usermod -aG 4000001 {user}")


def test_a_card_that_delivery_cannot_clean_is_told(told: Callable[..., list[str]], device: Path, user: str) -> None:
    (device / "card").chmod(0o555)
    assert told(after_delivery="keep") == []
    assert told(after_delivery="delete") == [
        f'footage[0].path: {device}/card may not be changed by the user {user}: after_delivery = "delete" cannot '
        f"delete there; allow it: sudo chmod a+rwx {device}/card, or for a FAT card mount it with the option uid={user}"
    ]


def test_a_card_below_a_closed_folder_is_told(
    told: Callable[..., list[str]], device: Path, user: str, read: Callable[..., Config]
) -> None:
    device.chmod(CLOSED)
    lines = told()
    device.chmod(0o755)
    assert lines[0] == (
        f"footage[0].path: {device}/card may not be reached by the user {user}; "
        "allow it with sudo chmod a+x on each folder above it"
    )


def test_a_path_that_no_folder_can_have_is_told_in_the_words_of_the_system(read: Callable[..., Config]) -> None:
    name = "x" * 300
    config = read(f'api = {{ region = "za", username = "fleet" }}\n[[footage]]\npath = "/{name}"')
    assert f"footage[0].path: /{name} cannot be looked at: File name too long; check the card and the path" in str(
        environment.check(config)[0]
    )


def test_a_spool_that_the_service_can_create_is_in_order(told: Callable[..., list[str]]) -> None:
    assert told(spool="spool/new") == []


def test_a_spool_that_cannot_be_created_is_told(told: Callable[..., list[str]], device: Path, user: str) -> None:
    create = f"create it: sudo install -d -m 750 -o {user} {device}"
    assert told(spool="missing/new") == [f"spool.directory: {device}/missing does not exist; {create}/missing/new"]
    (device / "spool").chmod(0o555)
    assert told(spool="spool/new") == [
        f"spool.directory: {device}/spool may not be written by the user {user}; {create}/spool/new"
    ]


def test_a_spool_that_cannot_be_written_is_told(told: Callable[..., list[str]], device: Path, user: str) -> None:
    (device / "spool").chmod(0o555)
    assert told() == [
        f"spool.directory: {device}/spool may not be written by the user {user}; "
        f"give it to that user: sudo chown -R {user} {device}/spool"
    ]


def test_a_file_in_the_place_of_the_spool_is_told(told: Callable[..., list[str]], device: Path) -> None:
    assert told(spool="ca.pem") == [
        f"spool.directory: {device}/ca.pem is not a directory; name a directory that the service may keep for itself"
    ]


def test_missing_certificates_are_told(told: Callable[..., list[str]], device: Path, user: str) -> None:
    (device / "ca.pem").chmod(CLOSED)
    assert told() == [
        f"api.ca_file: {device}/ca.pem may not be read by the user {user}; allow it: sudo chmod a+r {device}/ca.pem"
    ]
    (device / "ca.pem").unlink()
    assert told() == [
        f"api.ca_file: {device}/ca.pem does not exist; correct the path, or remove the line to trust the usual "
        "certificates"
    ]
    (device / "ca.pem").mkdir()
    assert told() == [f"api.ca_file: {device}/ca.pem is not a regular file; name a file of certificates in PEM format"]
