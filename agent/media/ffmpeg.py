"""ffmpeg and ffprobe as children that disturb nobody: lowest priority, watched, and never left behind."""

from __future__ import annotations

import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

from agent.errors import Cancelled, FootageRefused, VisionIngestError
from agent.media.segments import Packet

INSTALL = "sudo apt install ffmpeg"

POLL_SECONDS = 0.25
# A child that says nothing for so long stands still: a failing card, or a file that sends it round in circles.
STALL_SECONDS = 120.0
LONGEST_LINE_BYTES = 1 << 20
COMPLAINT_BYTES = 1024
RETRY_REFUSED_SECONDS = 3600.0

# Found where util-linux is, so on every Debian; each is left out where it is missing. The kernel kills the child when
# the thread that started it is gone: a daemon that is killed must leave no ffmpeg behind.
_GENTLE = (
    ("setpriv", "--pdeathsig", "KILL"),
    ("ionice", "-c", "3", "-t"),
    ("nice", "-n", "19"),
)
# As a service the daemon is this nice itself, and may not change it: `nice` would complain where ffmpeg should.
NICE_ENOUGH = 10


class ToolFailed(VisionIngestError):
    """ffmpeg or ffprobe ended with an error; the text is what it said last."""


@dataclass(frozen=True, slots=True)
class CancelToken:
    """What a long piece of work needs of those around it.

    Args:
        stop: set when it is to be given up.
        alive: called at least each second while the work moves.
    """

    stop: threading.Event
    alive: Callable[[], None] = lambda: None


class ToolProcess:
    """One child process, alive only inside the `with`.

    Args:
        command: its words; they are found on $PATH.
        watch: when to give up, and whom to show that it moves.
        fds: descriptors that it inherits, so that it can open `/proc/self/fd/N`.
        folder: where it runs.
        stall_seconds: how long it may say nothing on its standard output.

    Attributes:
        complaints: the beginning of what it wrote to its standard error.
        complained_bytes: how much it wrote there in all.
    """

    def __init__(
        self,
        command: Sequence[str],
        cancel: CancelToken,
        *,
        fds: Sequence[int] = (),
        folder: Path | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._cancel = cancel
        self._stall_seconds = stall_seconds
        self._name = command[0]
        self.stderr_tail = ""
        self.stderr_bytes = 0
        gentle = [word for prefix in _gentle() if shutil.which(prefix[0]) for word in prefix]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # words of our own; the footage is named by a descriptor
                [*gentle, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                cwd=folder,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            )
        except OSError as exc:
            raise ToolFailed(f"{command[0]} could not be started: {exc.strerror}") from exc

    def __enter__(self) -> ToolProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def lines(self) -> Iterator[str]:
        """What it writes to its standard output, line by line, until it ends.

        Raises:
            Cancelled: `stop` was set.
            ToolFailed: it ended with an error.
            FootageRefused: it stood still, or someone ended it.
        """
        rest = b""
        for block in self._blocks():
            *whole, rest = (rest + block).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                raise ToolFailed(f"{self._name} wrote a line without end")
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")
        code = self._process.wait()
        if code < 0:
            raise FootageRefused(
                f"{self._name} was ended by signal {-code}, as where memory is short; looked at again in an hour",
                RETRY_REFUSED_SECONDS,
            )
        if code:
            raise ToolFailed(self.stderr_tail or f"{self._name} ended with code {code}")

    def finish(self) -> None:
        """Waits for its end; raises as `lines`."""
        for _ in self.lines():
            pass

    def _blocks(self) -> Iterator[bytes]:
        said, stderr_tail = cast(IO[bytes], self._process.stdout), cast(IO[bytes], self._process.stderr)
        moved = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(said, selectors.EVENT_READ)
            selector.register(stderr_tail, selectors.EVENT_READ)
            while selector.get_map():
                if self._cancel.stop.is_set():
                    raise Cancelled("the daemon is to stop")
                for key, _ in selector.select(POLL_SECONDS):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is said:
                        moved = time.monotonic()
                        yield data
                    else:
                        self._complain(data)
                if time.monotonic() - moved > self._stall_seconds:
                    raise FootageRefused(
                        f"{self._name} read nothing of it for {self._stall_seconds:g} s: the card may be failing; "
                        "looked at again in an hour",
                        RETRY_REFUSED_SECONDS,
                    )
                self._cancel.alive()

    def _complain(self, data: bytes) -> None:
        self.stderr_bytes += len(data)
        # The last words tell the cause.
        self.stderr_tail = (self.stderr_tail + data.decode(errors="replace"))[-COMPLAINT_BYTES:]


def _gentle() -> Sequence[Sequence[str]]:
    return _GENTLE if os.getpriority(os.PRIO_PROCESS, 0) < NICE_ENOUGH else _GENTLE[:-1]


def is_installed(path: str | None = None) -> bool:
    """Whether ffmpeg and ffprobe are there; asked again each time, since someone may install them meanwhile."""
    return shutil.which("ffmpeg", path=path) is not None and shutil.which("ffprobe", path=path) is not None


def needs_ffmpeg(why: str) -> str:
    """The refusal of what only ffmpeg can do."""
    return f"{why}: to deliver it, the agent needs ffmpeg: {INSTALL}; looked at again in 10 minutes"


def last_line(said: str) -> str:
    """The last thing that a tool said, which is the cause; without the address in memory that ffmpeg puts before it."""
    lines = [line.split("] ", 1)[-1].strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it does not say why"


# ffmpeg is told which demuxer to use: left to guess, it also takes playlists, which name other files to read.
DEMUXERS = {"MP4": "mov", "MOV": "mov", "TS": "mpegts", "AVI": "avi", "MKV": "matroska"}
# As sample descriptions in MP4 call them, so that the same codec has one name wherever it was found.
_CODES = {
    "h264": "avc1",
    "hevc": "hvc1",
    "mjpeg": "jpeg",
    "mpeg4": "mp4v",
    "h263": "s263",
    "vp9": "vp09",
    "av1": "av01",
}
_SYNC_PLACES = ((0, 188, 376), (4, 196, 388))
_HEAD_BYTES = 400


@dataclass(frozen=True, slots=True)
class InputFile:
    """Footage as ffmpeg opens it: by a descriptor, so that it stays the same file whatever happens to its name.

    Args:
        fd: an open descriptor of it.
        container: a key of DEMUXERS.
    """

    fd: int
    container: str

    @property
    def input(self) -> tuple[str, ...]:
        """The words that name it to ffmpeg and ffprobe."""
        return ("-protocol_whitelist", "file", "-f", DEMUXERS[self.container], "-i", f"file:/proc/self/fd/{self.fd}")


@dataclass(frozen=True, slots=True)
class Stream:
    """Args:
    index: its number in the file.
    codec: the name that ffmpeg has for it, such as "h264".
    """

    index: int
    codec: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the headers of a file say.

    Args:
        video: the first video stream that is no cover picture.
        audio: all audio streams.
        duration_seconds: of the video, else of the whole; 0.0 if the headers say nothing.
    """

    video: Stream
    audio: tuple[Stream, ...]
    duration_seconds: float

    @property
    def code(self) -> str:
        """The video's codec as a four-character code, as `Media.codec`."""
        return _CODES.get(self.video.codec, self.video.codec)


def container_of(file: BinaryIO) -> str | None:
    """The container by a file's first bytes, of those that ffmpeg is used for beside MP4: TS, AVI, MKV; None: other."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "MKV"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "AVI"
    if any(all(head[place : place + 1] == b"\x47" for place in places) for places in _SYNC_PLACES):
        return "TS"
    return None


def probe_file(input_file: InputFile, cancel: CancelToken) -> ProbeResult:
    """Reads the headers.

    Raises:
        FootageRefused: ffprobe can make nothing of it, or there is no video in it.
        Cancelled: `cancel` says stop.
    """
    entries = "format=duration:stream=index,codec_type,codec_name,duration:stream_disposition=attached_pic"
    command = ("ffprobe", "-v", "error", "-of", "json", "-show_entries", entries, *input_file.input)
    try:
        with ToolProcess(command, cancel, fds=(input_file.fd,)) as tool:
            said = json.loads("\n".join(tool.lines()))
    except (ToolFailed, ValueError) as exc:
        raise FootageRefused(f"no video can be read from it: {last_line(str(exc))}") from exc
    streams: list[Mapping[str, Any]] = said.get("streams", [])
    video = next((s for s in streams if s.get("codec_type") == "video" and not _is_picture(s)), None)
    if video is None:
        raise FootageRefused("it has no video track")
    audio = tuple(_stream(s) for s in streams if s.get("codec_type") == "audio")
    durations = (video.get("duration"), said.get("format", {}).get("duration"))
    seconds = next(filter(None, (_number(str(duration)) for duration in durations)), 0.0)
    return ProbeResult(_stream(video), audio, max(0.0, seconds))


def packets(input_file: InputFile, probed: ProbeResult, cancel: CancelToken) -> Iterator[Packet]:
    """Every packet of the video and the audio, in the file's order.

    Raises:
        FootageRefused: ffprobe gave up, or the card stood still.
        Cancelled: `cancel` says stop.
    """
    video = probed.video.index
    kept = {video, *(stream.index for stream in probed.audio)}
    entries = "packet=stream_index,pts_time,dts_time,duration_time,size,pos,flags"
    command = ("ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", entries, *input_file.input)
    try:
        with ToolProcess(command, cancel, fds=(input_file.fd,)) as tool:
            for line in tool.lines():
                fields = line.split(",")
                if len(fields) >= 7 and fields[0].isdigit() and int(fields[0]) in kept:
                    yield _packet(fields, video)
    except ToolFailed as exc:
        raise FootageRefused(f"its pictures cannot be read: {last_line(str(exc))}") from exc


def _packet(fields: list[str], video: int) -> Packet:
    index, pts, dts, duration, size, position, flags = fields[:7]
    moment = _number(pts)
    return Packet(
        is_video=int(index) == video,
        seconds=_number(dts) if moment is None else moment,
        duration_seconds=_number(duration) or 0.0,
        size_bytes=int(_number(size) or 0),
        is_key=flags.startswith("K"),
        position=int(position) if position.isdigit() else None,
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _stream(said: Mapping[str, Any]) -> Stream:
    return Stream(int(said["index"]), str(said.get("codec_name", "unknown")))


def _is_picture(said: Mapping[str, Any]) -> bool:
    return bool(said.get("disposition", {}).get("attached_pic"))
