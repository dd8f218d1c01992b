from __future__ import annotations

import pytest

from agent.config.values import Reader, WrongValueError, base_url, proxy, webhook_url

BASE_URL_ALLOWED = 'allowed is an address such as "https://fleetapi-za.cartrack.com/rest"'
PROXY_ALLOWED = 'allowed is an HTTP proxy such as "http://10.0.0.1:3128"'
WEBHOOK_ALLOWED = 'allowed is an address such as "https://fleet.example.com/vision-results"'


def message(read: Reader, value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        read(value)
    return f"{caught.value.wrong}; {caught.value.allowed}"


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
def test_the_base_url_is_encrypted_or_on_this_machine(written: str, url: str) -> None:
    assert base_url(written) == url


@pytest.mark.parametrize("url", ["http://fleetapi-za.cartrack.com/rest", "http://192.168.1.4", "http://localhost.evil"])
def test_an_unencrypted_base_url_is_refused_because_of_the_password(url: str) -> None:
    assert message(base_url, url) == (
        f'"{url}" is not encrypted: the password could be read on the way; '
        "write https:// (http:// only reaches this machine itself, such as http://127.0.0.1:8000)"
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
def test_what_is_no_web_address_is_refused(url: str) -> None:
    assert message(base_url, url) == f'"{url}" is not a web address that can be used here; {BASE_URL_ALLOWED}'


def test_a_base_url_is_an_address_and_no_more() -> None:
    for url, shown in {
        "https://fleet:hunter2@a.example": "https://...@a.example",
        "https://a.example/rest?x=1": "https://a.example/rest?x=1",
        "https://a.example/rest#x": "https://a.example/rest#x",
    }.items():
        assert message(base_url, url) == (
            f'"{shown}" holds more than an address; {BASE_URL_ALLOWED}, without a username, ? or #'
        )


def test_a_proxy_may_hold_a_username_and_a_password() -> None:
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
def test_a_wrong_proxy_is_shown_without_its_password(url: str, shown: str) -> None:
    assert message(proxy, url) == f'"{shown}" is not a web address that can be used here; {PROXY_ALLOWED}'


def test_a_webhook_url_is_a_web_address() -> None:
    assert webhook_url("https://fleet.example.com/results?key=1") == "https://fleet.example.com/results?key=1"
    assert message(webhook_url, "fleet.example.com") == (
        f'"fleet.example.com" is not a web address that can be used here; {WEBHOOK_ALLOWED}'
    )
