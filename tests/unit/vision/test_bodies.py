from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from email import policy
from email.parser import BytesParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Cancelled, ClipUnreadable, LinkDown
from agent.model import Upload
from agent.vision.bodies import CHUNK_BYTES, JsonBulkBody, MultipartBulkBody, SingleBody
from tests.support.vision_cases import stored_clip, upload_of

UTC = ZoneInfo("UTC")
SIZES = [0, 1, 2, 3, 1000, CHUNK_BYTES // 4 * 3, CHUNK_BYTES + 1, 700_001]
FAILING_FILE = Path("/sys/class/net/lo/speed")  # the loopback interface has no speed: reading it fails like a bad card
Part = tuple[str | None, str | None, str, bytes]
Bulk = type[JsonBulkBody] | type[MultipartBulkBody]
both = pytest.mark.parametrize("bulk", [JsonBulkBody, MultipartBulkBody], ids=["json", "multipart"])


def parts(content_type: str, body: bytes) -> list[Part]:
    """The fields and files that a server finds in a multipart body."""
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + body)
    assert message.is_multipart()
    assert not message.defects
    found: list[Part] = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((str(name), part.get_filename(), part.get_content_type(), content))
    return found


def text_part(name: str, value: str) -> Part:
    return (name, None, "text/plain", value.encode())


def batch(folder: Path) -> list[Upload]:
    return [
        stored_clip(folder, os.urandom(size), id=index, camera=index, comments="" if index % 2 else "left turn")
        for index, size in enumerate(SIZES)
    ]


def test_the_json_body_is_what_the_library_would_send(tmp_path: Path) -> None:
    uploads = batch(tmp_path)
    document = {
        "data": [
            {
                "registration": "ABC1234X",
                "camera": upload.id,
                "start_timestamp": "2026-03-01 12:00:00",
                "end_timestamp": "2026-03-01 12:01:00",
                **({"comments": upload.comments} if upload.comments else {}),
                "video_file": base64.b64encode(upload.file.read_bytes()).decode(),
            }
            for upload in uploads
        ],
        "webhook_url": "https://fleet.example/hook",
    }
    body = JsonBulkBody(uploads, UTC, "https://fleet.example/hook")
    sent = b"".join(body)
    assert sent == json.dumps(document).encode()
    assert len(sent) == len(body)
    assert sent == requests.Request("POST", "http://x/", json=document).prepare().body


def test_the_multipart_body_is_what_the_library_would_send(tmp_path: Path) -> None:
    uploads = batch(tmp_path)
    files = []
    for index, upload in enumerate(uploads):
        name = f"data[{index}]".__add__
        files += [
            (name("[registration]"), (None, "ABC1234X")),
            (name("[camera]"), (None, str(index))),
            (name("[start_timestamp]"), (None, "2026-03-01 12:00:00")),
            (name("[end_timestamp]"), (None, "2026-03-01 12:01:00")),
            *([(name("[comments]"), (None, upload.comments))] if upload.comments else []),
            (name("[video_file]"), (f"{upload.id}.mp4", upload.file.read_bytes(), "video/mp4")),
        ]
    files.append(("webhook_url", (None, "https://fleet.example/hook")))
    expected = requests.Request("POST", "http://x/", files=files).prepare()
    body = MultipartBulkBody(uploads, UTC, "https://fleet.example/hook")
    sent = b"".join(body)
    assert isinstance(expected.body, bytes)
    assert parts(body.content_type, sent) == parts(expected.headers["Content-Type"], expected.body)
    assert len(sent) == len(body)
    assert b'name="data[0][video_file]"; filename="0.mp4"\r\nContent-Type: video/mp4\r\n' in sent


def test_the_single_upload_is_a_form_with_the_fields_at_its_top(tmp_path: Path) -> None:
    upload = stored_clip(tmp_path, b"footage", id=7, camera=2, comments="harsh braking")
    body = SingleBody(upload, UTC)
    sent = b"".join(body)
    assert len(sent) == len(body)
    assert parts(body.content_type, sent) == [
        text_part("registration", "ABC1234X"),
        text_part("camera", "2"),
        text_part("start_timestamp", "2026-03-01 12:00:00"),
        text_part("end_timestamp", "2026-03-01 12:01:00"),
        text_part("comments", "harsh braking"),
        ("video_file", "7.mp4", "video/mp4", b"footage"),
    ]


def test_times_are_written_in_the_zone_of_the_api(tmp_path: Path) -> None:
    body = JsonBulkBody([stored_clip(tmp_path)], ZoneInfo("Africa/Johannesburg"))
    assert json.loads(b"".join(body))["data"][0]["start_timestamp"] == "2026-03-01 14:00:00"


def test_without_a_webhook_the_body_has_none(tmp_path: Path) -> None:
    upload = stored_clip(tmp_path)
    assert json.loads(b"".join(JsonBulkBody([upload], UTC))).keys() == {"data"}
    assert b"webhook" not in b"".join(MultipartBulkBody([upload], UTC))


@given(registration=st.text(), comments=st.text(min_size=1))
def test_no_text_of_a_user_can_inject_fields_or_headers(registration: str, comments: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        upload = stored_clip(Path(folder), registration=registration, comments=comments)
        record = json.loads(b"".join(JsonBulkBody([upload], UTC)))["data"][0]
        assert (record["registration"], record["comments"]) == (registration, comments)
        body = MultipartBulkBody([upload], UTC)
        boundary = body.content_type.partition("boundary=")[2].encode()
        sent = b"".join(body)
    values = [part.partition(b"\r\n\r\n")[2] for part in sent.split(b"--" + boundary)[1:-1]]
    assert values[0] == registration.encode() + b"\r\n"
    assert values[4] == comments.encode() + b"\r\n"
    assert len(values) == 6


def test_surrogates_in_text_are_replaced(tmp_path: Path) -> None:
    upload = stored_clip(tmp_path, comments="caf\udce9")
    assert json.loads(b"".join(JsonBulkBody([upload], UTC)))["data"][0]["comments"] == "caf?"
    assert b"\r\ncaf?\r\n" in b"".join(MultipartBulkBody([upload], UTC))


@both
def test_a_body_can_be_sent_again(tmp_path: Path, bulk: Bulk) -> None:
    body = bulk(batch(tmp_path), UTC)
    assert b"".join(body) == b"".join(body)


@both
def test_chunks_are_small(tmp_path: Path, bulk: Bulk) -> None:
    body = bulk([stored_clip(tmp_path, bytes(1_000_000))], UTC)
    assert max(len(piece) for piece in body) <= CHUNK_BYTES


@both
def test_small_clips_share_a_chunk(tmp_path: Path, bulk: Bulk) -> None:
    body = bulk([stored_clip(tmp_path, bytes(1000), id=id) for id in range(20)], UTC)
    assert len(list(body)) == 1


@both
def test_progress_counts_sent_bytes_and_names_the_clip(tmp_path: Path, bulk: Bulk) -> None:
    told: list[tuple[int, int]] = []
    uploads = [stored_clip(tmp_path, bytes(500_000), id=id) for id in (5, 6)]
    body = bulk(uploads, UTC, progress=lambda sent_bytes, position: told.append((sent_bytes, position)))
    sent = 0
    for piece in body:
        assert (told[-1][0] if told else 0) == sent
        sent += len(piece)
    assert told[-1] == (len(body), 1)
    assert {position for _, position in told} == {0, 1}
    assert told == sorted(told)


@both
def test_a_body_stops_before_the_next_chunk(tmp_path: Path, bulk: Bulk) -> None:
    sent: list[bytes] = []
    body = bulk([stored_clip(tmp_path, bytes(2_000_000))], UTC, stopping=lambda: len(sent) == 2)
    with pytest.raises(Cancelled):
        sent.extend(body)
    assert len(sent) == 2


class TestAFileThatIsNotTheOneStored:
    def unreadable(self, upload: Upload, bulk: Bulk, *, is_transient: bool = False) -> str:
        with pytest.raises(ClipUnreadable) as caught:
            list(bulk([upload], UTC))
        assert caught.value.file == upload.file
        assert caught.value.is_transient is is_transient
        return caught.value.reason

    @both
    def test_a_missing_file_is_unreadable(self, tmp_path: Path, bulk: Bulk) -> None:
        upload = stored_clip(tmp_path)
        upload.file.unlink()
        assert self.unreadable(upload, bulk) == "cannot be opened: No such file or directory"

    @both
    def test_a_file_of_another_size_is_unreadable(self, tmp_path: Path, bulk: Bulk) -> None:
        upload = stored_clip(tmp_path, b"12345")
        upload.file.write_bytes(b"1234567")
        assert self.unreadable(upload, bulk) == "was written to after it was stored: it has 7 bytes instead of 5"

    @both
    def test_a_file_that_was_rewritten_in_place_is_unreadable(self, tmp_path: Path, bulk: Bulk) -> None:
        upload = stored_clip(tmp_path, b"12345")
        os.utime(upload.file, ns=(0, upload.modified_ns + 1))
        assert self.unreadable(upload, bulk) == "was written to after it was stored"

    @both
    def test_a_link_is_not_followed(self, tmp_path: Path, bulk: Bulk) -> None:
        upload = stored_clip(tmp_path)
        upload.file.rename(tmp_path / "elsewhere")
        upload.file.symlink_to(tmp_path / "elsewhere")
        assert "cannot be opened" in self.unreadable(upload, bulk)

    @both
    def test_a_named_pipe_does_not_block(self, tmp_path: Path, bulk: Bulk) -> None:
        upload = stored_clip(tmp_path)
        upload.file.unlink()
        os.mkfifo(upload.file)
        assert self.unreadable(upload, bulk) == "is not a regular file"

    @both
    @pytest.mark.skipif(not FAILING_FILE.exists(), reason="needs a file of the kernel that cannot be read")
    def test_an_io_error_is_transient(self, bulk: Bulk) -> None:
        assert self.unreadable(upload_of(FAILING_FILE), bulk, is_transient=True) == "cannot be read: Invalid argument"

    @both
    def test_all_files_are_checked_before_the_first_byte(self, tmp_path: Path, bulk: Bulk) -> None:
        uploads = [stored_clip(tmp_path, id=id) for id in (1, 2)]
        uploads[1].file.unlink()
        sent: list[bytes] = []
        with pytest.raises(ClipUnreadable):
            sent.extend(bulk(uploads, UTC))
        assert sent == []

    @both
    @pytest.mark.parametrize("change", ["shrink", "grow", "rewrite"])
    def test_a_file_that_changes_while_it_is_sent_never_completes_a_body(
        self, tmp_path: Path, bulk: Bulk, change: str
    ) -> None:
        upload = stored_clip(tmp_path, os.urandom(1_000_000))
        body = bulk([upload], UTC)
        sent_bytes = 0
        with pytest.raises(ClipUnreadable):  # noqa: PT012  # the change comes in the middle of it
            for number, piece in enumerate(body):
                sent_bytes += len(piece)
                if number == 2:
                    with upload.file.open("r+b") as file:
                        if change == "shrink":
                            file.truncate(500_000)
                        else:
                            file.seek(0, os.SEEK_END if change == "grow" else os.SEEK_SET)
                            file.write(b"other")
        assert sent_bytes < len(body)


@both
def test_a_device_short_of_file_handles_does_not_lose_the_clip(
    tmp_path: Path, bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise OSError(24, "Too many open files")

    body = bulk([stored_clip(tmp_path)], UTC)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LinkDown, match="Too many open files"):
        list(body)


MEMORY_PROBE = """
import sys
from pathlib import Path
from zoneinfo import ZoneInfo
from agent.vision import bodies, client
from tests.support.vision_cases import upload_of
kind, *files = sys.argv[1:]
uploads = [upload_of(Path(file), id=number) for number, file in enumerate(files)]
body = getattr(bodies, kind)(uploads, ZoneInfo("UTC"))
assert sum(len(piece) for piece in body) == len(body)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@both
def test_twenty_clips_of_48_mb_need_little_memory(tmp_path: Path, bulk: Bulk) -> None:
    files = [tmp_path / f"{number}.clip" for number in range(20)]
    with files[0].open("wb") as sparse:
        sparse.truncate(48_000_000)
    for file in files[1:]:
        file.hardlink_to(files[0])  # so that the kernel caches one of them, not twenty
    probe = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, bulk.__name__, *files], capture_output=True, text=True, check=True
    )
    assert int(probe.stdout) < 60_000  # kB, most of it for the interpreter and its libraries
