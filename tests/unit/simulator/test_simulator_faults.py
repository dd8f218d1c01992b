"""Fault injection."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

import pytest
import requests
import urllib3

from simulator.faults import Fault
from simulator.server import Simulator
from simulator.settings import AnswerShape
from tests.support.daemon import await_until
from tests.support.simulated_account import BULK, LIST, PATIENCE_SECONDS, STATUS, Account, clip, fields, record

BIG = b"x" * 3_000_000


def test_an_answer_comes_in_place_of_the_servers_own_so_many_times(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", times=2, status=502, content="<html>", content_type="text/html"))
    answers = [account.get(STATUS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [502, 502, 200]
    assert (answers[0].text, answers[0].headers["Content-Type"]) == ("<html>", "text/html; charset=utf-8")
    assert [request.status for request in simulator.requests] == [502, 502, 200]


def test_an_answer_carries_headers_and_waits_for_the_body(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", status=503, headers={"Retry-After": "7"}))
    answer = account.bulk(record())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert simulator.requests[-1].body_bytes > len(clip())
    assert simulator.received == []


def test_a_fault_without_a_number_of_times_stays_until_it_is_cleared(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", times=0))
    assert [account.get(STATUS).status_code for _ in range(3)] == [500, 500, 500]
    simulator.faults.clear()
    assert account.get(STATUS).status_code == 200


def test_a_reset_cuts_the_connection_without_an_answer(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("reset"))
    with pytest.raises(requests.ConnectionError):
        account.bulk(record())
    assert simulator.requests[-1].status == 0
    assert account.bulk(record()).status_code == 200


def test_a_reset_may_strike_in_the_middle_of_the_body(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("reset", after_bytes=1_000_000))
    with pytest.raises(requests.ConnectionError):
        account.bulk(record(video=BIG))
    assert 1_000_000 <= simulator.requests[-1].body_bytes < len(BIG)


def test_a_fault_strikes_only_requests_with_its_path(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", path="bulk-upload"))
    assert account.get(LIST).status_code == 200
    assert account.bulk(record()).status_code == 500


def test_a_fault_strikes_only_requests_with_its_clip(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", clip=f"ABC1234X 1 {fields(1)['start_timestamp']}"))
    assert account.bulk(record(0), record(2)).status_code == 200
    assert account.bulk(record(0), record(1)).status_code == 500
    assert account.bulk(record(0), record(1)).status_code == 200


def test_a_stall_keeps_the_client_waiting_then_cuts(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("stall", seconds=0.2))
    started = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        account.bulk(record())
    assert time.monotonic() - started >= 0.2


def test_a_slow_link_takes_its_time_and_arrives(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("slow", bytes_per_second=20_000_000))
    started = time.monotonic()
    answer = account.bulk(record(video=BIG))
    assert time.monotonic() - started >= len(BIG) * 4 / 3 / 20_000_000
    assert answer.status_code == 200


def test_a_slow_link_may_also_break(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("slow", bytes_per_second=50_000_000))
    simulator.faults.add(Fault("answer", clip="ABC1234X", status=500))
    assert account.bulk(record()).status_code == 500


def is_cut(account: Account) -> bool:
    try:
        assert account.get(STATUS).status_code == 200
    except requests.ConnectionError:
        return True
    return False


def test_a_dropped_link_cuts_everything(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("drop", seconds=3600.0))
    assert [is_cut(account) for _ in range(3)] == [True, True, True]


def test_a_dropped_link_comes_back(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("drop", seconds=0.3))
    dropped_at = time.monotonic()
    assert is_cut(account)
    await_until(lambda: not is_cut(account), "the link to be back")
    assert time.monotonic() - dropped_at >= 0.3


def test_a_rejection_concerns_only_its_clip(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("reject", clip=fields(1)["start_timestamp"], content="Storage failure."))
    (group,) = account.results(record(0), record(1))
    assert [video.get("errors") for video in group["videos"]] == [None, "Storage failure."]
    assert len(simulator.received) == 1


def test_an_omitted_result_is_that_of_a_clip_that_was_stored(simulator: Simulator, account: Account) -> None:
    simulator.settings = replace(simulator.settings, answer=AnswerShape("flat"))
    simulator.faults.add(Fault("omit_result", clip=fields(0)["start_timestamp"]))
    results = account.results(record(0), record(1))
    assert [result["start_timestamp"] for result in results] == [fields(1)["start_timestamp"]]
    assert len(simulator.received) == 2


@pytest.mark.parametrize("action", ["withhold", "truncate"])
def test_a_request_whose_response_is_lost_was_processed(
    simulator: Simulator, account: Account, action: Literal["withhold", "truncate"]
) -> None:
    simulator.faults.add(Fault(action, path="upload"))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        account.bulk(record())
    assert len(simulator.received) == 1
    assert simulator.requests[-1].status == 200
    assert account.bulk(record()).status_code == 200


def test_a_truncated_response_lacks_its_last_byte(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("truncate", path="upload"))
    seen = account.session.post(
        simulator.base_url + BULK, json={"data": [record()]}, stream=True, timeout=PATIENCE_SECONDS
    )
    assert len(seen.raw.read(int(seen.headers["Content-Length"]) - 1)) == int(seen.headers["Content-Length"]) - 1
    with pytest.raises((urllib3.exceptions.ProtocolError, ConnectionError)):
        seen.raw.read(1)


def test_faults_are_armed_and_cleared_over_http(account: Account) -> None:
    assert account.fault(action="answer", status=418, times=0).status_code == 200
    assert account.get(STATUS).status_code == 418
    assert account.fault("DELETE").status_code == 200
    assert account.get(STATUS).status_code == 200


@pytest.mark.parametrize(("former", "errors"), [("complain", ["no"]), ("silence", [])])
def test_former_names_of_actions_are_still_accepted_over_http(account: Account, former: str, errors: list[str]) -> None:
    assert account.fault(action=former, content="no").status_code == 200
    assert [video["errors"] for group in account.results(record()) for video in group["videos"]] == errors


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"action": "explode"}, "action must be one of: reset, stall"),
        ({}, "action must be one of"),
        ({"action": "reset", "tims": 3}, "unknown: tims; known: action, after_bytes"),
        ({"action": "reset", "times": "3"}, "times has a value of the wrong type"),
        ({"action": "reset", "times": True}, "times has a value of the wrong type"),
        ({"action": "slow"}, "slow needs bytes_per_second"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_is_allowed(account: Account, fault: dict[str, Any], words: str) -> None:
    answer = account.fault(**fault)
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_a_fault_that_is_no_object_is_refused(simulator: Simulator, account: Account) -> None:
    root = simulator.base_url.removesuffix("/rest")
    for text in ("[1]", "{"):
        assert account.session.post(f"{root}/_simulator/faults", data=text, timeout=60).status_code == 422


def test_an_early_answer_leaves_the_rest_of_the_body_unread(simulator: Simulator, account: Account) -> None:
    simulator.faults.add(Fault("answer", after_bytes=500_000, status=401))
    try:
        assert account.post(BULK, data=BIG).status_code == 401
    except requests.ConnectionError:
        assert simulator.requests[-1].status == 401
    assert simulator.requests[-1].body_bytes < len(BIG)
