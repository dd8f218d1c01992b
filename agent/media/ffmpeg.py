"""ffmpeg and ffprobe as child processes of the lowest priority, with a stall timeout, that never outlive the daemon.

Below: what ffprobe reports about a file, its streams and its packets, streamed to keep memory small.
"""

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
# A tool that writes no output for this long has stalled: a failing card, or a file that keeps it in a loop.
STALL_SECONDS = 120.0
MAX_LINE_BYTES = 1 << 20
STDERR_TAIL_BYTES = 1024
RETRY_REFUSED_SECONDS = 3600.0

# Part of util-linux and coreutils, so of every Debian; each is left out where it is missing. --pdeathsig: the kernel
# kills the tool when the thread that started it is gone, since a daemon that is killed must leave no ffmpeg behind.
_PRIORITY_PREFIXES = (
    ("setpriv", "--pdeathsig", "KILL"),
    ("ionice", "-c", "3", "-t"),
    ("nice", "-n", "19"),
)
# As a service, the daemon itself has this niceness and may not change it: `nice` would only add its error to ffmpeg's.
NICE_OF_SERVICE = 10


class ToolFailed(VisionIngestError):
    """ffmpeg or ffprobe ended with an error; the text is the end of its standard error."""


@dataclass(frozen=True, slots=True)
class CancelToken:
    """Lets long work be cancelled, and report that it is alive.

    Args:
        stop: set when the work is to end; it then raises Cancelled.
        alive: called at least each second while the work makes progress.
    """

    stop: threading.Event
    alive: Callable[[], None] = lambda: None


class ToolProcess:
    """One run of a tool; the process lives only inside the `with`.

    Args:
        command: the tool, found on $PATH, and its arguments.
        cancel: ends it early, and is told that it is alive.
        fds: descriptors that it inherits, so that it can open `/proc/self/fd/N`.
        folder: its working directory.
        stall_seconds: how long it may write nothing to its standard output.

    Attributes:
        stderr_tail: the end of what it wrote to its standard error.
        stderr_bytes: how much it wrote there in all.
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
        prefixes = [word for prefix in _priority_prefixes() if shutil.which(prefix[0]) for word in prefix]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # words of our own; the footage is named by a descriptor
                [*prefixes, *command],
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
        """Its standard output, line by line, until it ends.

        Raises:
            Cancelled: the daemon is to stop.
            ToolFailed: it ended with an error.
            FootageRefused: it stalled, or was killed by a signal; to be tried again in an hour.
        """
        rest = b""
        for block in self._blocks():
            *whole, rest = (rest + block).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise ToolFailed(f"{self._name} wrote a line without end")
            for line in whole:
                yield line.decode(errors="replace")
        if rest:
            yield rest.decode(errors="replace")
        code = self._process.wait()
        if code < 0:
            raise FootageRefused(
                f"{self._name} was ended by signal {-code}, perhaps for lack of memory; retried in an hour",
                RETRY_REFUSED_SECONDS,
            )
        if code:
            raise ToolFailed(self.stderr_tail or f"{self._name} ended with code {code}")

    def finish(self) -> None:
        """Waits for its end; raises as `lines`."""
        for _ in self.lines():
            pass

    def _blocks(self) -> Iterator[bytes]:
        output, stderr_tail = cast(IO[bytes], self._process.stdout), cast(IO[bytes], self._process.stderr)
        last_output_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(stderr_tail, selectors.EVENT_READ)
            while selector.get_map():
                if self._cancel.stop.is_set():
                    raise Cancelled("the daemon is to stop")
                for key, _ in selector.select(POLL_SECONDS):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is output:
                        last_output_at = time.monotonic()
                        yield data
                    else:
                        self._keep_stderr_tail(data)
                if time.monotonic() - last_output_at > self._stall_seconds:
                    raise FootageRefused(
                        f"{self._name} read nothing of it for {self._stall_seconds:g} s: the card may be failing; "
                        "retried in an hour",
                        RETRY_REFUSED_SECONDS,
                    )
                self._cancel.alive()

    def _keep_stderr_tail(self, data: bytes) -> None:
        self.stderr_bytes += len(data)
        # The last lines name the cause.
        self.stderr_tail = (self.stderr_tail + data.decode(errors="replace"))[-STDERR_TAIL_BYTES:]


def _priority_prefixes() -> Sequence[Sequence[str]]:
    return _PRIORITY_PREFIXES if os.getpriority(os.PRIO_PROCESS, 0) < NICE_OF_SERVICE else _PRIORITY_PREFIXES[:-1]


def is_installed(path: str | None = None) -> bool:
    """Whether ffmpeg and ffprobe are installed. Not cached: someone may install them meanwhile."""
    return shutil.which("ffmpeg", path=path) is not None and shutil.which("ffprobe", path=path) is not None


def needs_ffmpeg(why: str) -> str:
    """The refusal of footage that only ffmpeg could make fit. Args: why: what about it does not fit."""
    return f"{why}: to deliver it, the agent needs ffmpeg: {INSTALL}; retried in 10 minutes"


def last_line(output: str) -> str:
    """The last line of a tool's output, which names the cause, without the memory address that ffmpeg prefixes."""
    lines = [line.split("] ", 1)[-1].strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it does not say why"


# The demuxer is always given: if ffmpeg guesses, it also accepts playlists, which make it read other files.
DEMUXERS = {"MP4": "mov", "MOV": "mov", "TS": "mpegts", "AVI": "avi", "MKV": "matroska"}
# ffmpeg's names to the four-character codes of MP4: one name for a codec in any container.
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
    """Footage as ffmpeg opens it: by descriptor, so that it stays the same file whatever happens to its name.

    Args:
        fd: an open descriptor of it.
        container: a key of DEMUXERS.
    """

    fd: int
    container: str

    @property
    def input(self) -> tuple[str, ...]:
        """The arguments that name it to ffmpeg and ffprobe."""
        return ("-protocol_whitelist", "file", "-f", DEMUXERS[self.container], "-i", f"file:/proc/self/fd/{self.fd}")


@dataclass(frozen=True, slots=True)
class Stream:
    """Args:
    index: its number in the file.
    codec: ffmpeg's name, such as "h264".
    """

    index: int
    codec: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the headers of a file say.

    Args:
        video: the first video stream that is not a cover picture.
        audio: all audio streams.
        duration_seconds: of the video, else of the file; 0.0 if the headers have none.
    """

    video: Stream
    audio: tuple[Stream, ...]
    duration_seconds: float

    @property
    def code(self) -> str:
        """The video's codec as a four-character code."""
        return _CODES.get(self.video.codec, self.video.codec)


def container_of(file: BinaryIO) -> str | None:
    """ "TS", "AVI" or "MKV" by a file's first bytes; None for anything else, MP4 included."""
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
        FootageRefused: ffprobe cannot read it, or there is no video in it.
        Cancelled: the daemon is to stop.
    """
    entries = "format=duration:stream=index,codec_type,codec_name,duration:stream_disposition=attached_pic"
    command = ("ffprobe", "-v", "error", "-of", "json", "-show_entries", entries, *input_file.input)
    try:
        with ToolProcess(command, cancel, fds=(input_file.fd,)) as tool:
            output = json.loads("\n".join(tool.lines()))
    except (ToolFailed, ValueError) as exc:
        raise FootageRefused(f"no video can be read from it: {last_line(str(exc))}") from exc
    streams: list[Mapping[str, Any]] = output.get("streams", [])
    video = next((s for s in streams if s.get("codec_type") == "video" and not _is_cover_picture(s)), None)
    if video is None:
        raise FootageRefused("it has no video track")
    audio = tuple(_stream(s) for s in streams if s.get("codec_type") == "audio")
    durations = (video.get("duration"), output.get("format", {}).get("duration"))
    seconds = next(filter(None, (_number(str(duration)) for duration in durations)), 0.0)
    return ProbeResult(_stream(video), audio, max(0.0, seconds))


def packets(input_file: InputFile, probed: ProbeResult, cancel: CancelToken) -> Iterator[Packet]:
    """Every packet of the video and the audio, in the file's order.

    Raises:
        FootageRefused: ffprobe failed or stalled.
        Cancelled: the daemon is to stop.
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


def _stream(output: Mapping[str, Any]) -> Stream:
    return Stream(int(output["index"]), str(output.get("codec_name", "unknown")))


def _is_cover_picture(output: Mapping[str, Any]) -> bool:
    return bool(output.get("disposition", {}).get("attached_pic"))
