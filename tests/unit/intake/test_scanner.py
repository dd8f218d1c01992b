from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from structlog.testing import capture_logs

from agent.config import FootageFolder, SpoolSettings
from agent.device.safe_open import OpenFootage
from agent.device.warn_once import WarnOnce
from agent.intake.scanner import FolderScanner, NotFootage, SeenCache, is_in_scope, matches_filters, stat_footage, walk
from agent.model import Footage
from agent.spool import Spool
from tests.unit.intake.test_intake import Bench

NOBODY = 65534


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of an ordinary user, whose permissions count; the test runs as that user."""
    place = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(place, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield place
    os.seteuid(user)
    for directory in [place, *place.rglob("*/")]:
        directory.chmod(stat.S_IRWXU)
    shutil.rmtree(place)


def footage_names(folder: FootageFolder) -> set[str]:
    return {found.path.relative_to(folder.path).as_posix() for found in walk(folder) if isinstance(found, Footage)}


def not_footage(folder: FootageFolder) -> dict[str, str]:
    return {found.path.name: found.reason for found in walk(folder) if isinstance(found, NotFootage)}


def write(path: Path, content: bytes = b"footage") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_footage_at_every_depth_is_found_with_its_size_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "2026" / "07" / "a.mp4")
    assert list(walk(FootageFolder(tmp_path))) == [Footage(path, 7, path.stat().st_mtime_ns)]


def test_a_folder_that_is_not_recursive_is_not_searched_below_its_top(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    write(tmp_path / "below" / "b.mp4")
    assert footage_names(FootageFolder(tmp_path, recursive=False)) == {"a.mp4"}


def test_hidden_folders_and_files_are_left_out(tmp_path: Path) -> None:
    for name in ("a.mp4", ".b.mp4", ".Trash-1000/files/c.mp4", "DCIM/.cache/d.mp4"):
        write(tmp_path / name)
    assert footage_names(FootageFolder(tmp_path)) == {"a.mp4"}


@pytest.mark.parametrize("name", ["a.mp4", "A.MP4", "line\nbreak.mp4", "star*.mp4", "zürich.mp4", "\udcff\udc80.mp4"])
def test_footage_may_have_a_name_of_any_bytes(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert footage_names(FootageFolder(tmp_path)) == {name}


@pytest.mark.parametrize(
    "name", ["a.jpg", "mp4", "a.mp4.tmp", "a.mp4_", ".a.mp4", "a~2.mp4", "fsck0001.rec", "a.mp4\n"]
)
def test_files_that_are_not_included_or_are_excluded_are_not_footage(name: str) -> None:
    assert not matches_filters(FootageFolder(Path("/card")), name)


def test_include_and_exclude_are_configurable(tmp_path: Path) -> None:
    for name in ("front.ts", "front.MKV", "rear.ts", "front.mp4"):
        write(tmp_path / name)
    folder = FootageFolder(tmp_path, include=("*.TS", "*.mkv"), exclude=("REAR*",))
    assert footage_names(folder) == {"front.ts", "front.MKV"}


def test_symbolic_links_to_files_and_folders_are_not_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere" / "a.mp4")
    card = tmp_path / "card"
    card.mkdir()
    (card / "linked.mp4").symlink_to(elsewhere)
    (card / "dangling.mp4").symlink_to("nowhere")
    (card / "folder").symlink_to(elsewhere.parent)
    (card / "loop").symlink_to(card)
    found = not_footage(FootageFolder(card))
    assert footage_names(FootageFolder(card)) == set()
    assert found.keys() == {"linked.mp4", "dangling.mp4"}
    assert "a symbolic link" in found["linked.mp4"]


def test_a_folder_that_is_a_symbolic_link_is_scanned_under_its_configured_path(tmp_path: Path) -> None:
    write(tmp_path / "mounted" / "a.mp4")
    (tmp_path / "card").symlink_to("mounted")
    (found,) = walk(FootageFolder(tmp_path / "card"))
    assert found.path == tmp_path / "card" / "a.mp4"


def test_pipes_and_sockets_are_skipped_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.mp4"))
        found = not_footage(FootageFolder(tmp_path))
    assert found.keys() == {"pipe.mp4", "socket.mp4"}
    assert all("not a regular file" in reason for reason in found.values())


def test_an_unreadable_subfolder_is_skipped_and_the_rest_is_found(ordinary_folder: Path) -> None:
    write(ordinary_folder / "a.mp4")
    write(ordinary_folder / "locked" / "b.mp4").parent.chmod(0)
    assert footage_names(FootageFolder(ordinary_folder)) == {"a.mp4"}
    assert "chmod o+rx" in not_footage(FootageFolder(ordinary_folder))["locked"]


def test_files_of_a_folder_that_may_be_listed_but_not_entered_are_skipped(ordinary_folder: Path) -> None:
    write(ordinary_folder / "listed" / "b.mp4").parent.chmod(stat.S_IRUSR)
    assert "cannot be looked at" in not_footage(FootageFolder(ordinary_folder))["b.mp4"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(walk(FootageFolder(tmp_path / "unmounted")))


def test_a_subfolder_that_vanishes_during_the_scan_is_not_reported(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    (tmp_path / "going").mkdir()
    found = walk(FootageFolder(tmp_path))
    first = next(found)
    (tmp_path / "going").rmdir()
    assert [first.path.name, *found] == ["a.mp4"]


def test_a_path_too_long_for_the_system_is_skipped_with_a_reason(tmp_path: Path) -> None:
    deep = tmp_path
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        name = "d" * 250
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, deep = below, deep / name
    os.close(descriptor)
    (reason,) = not_footage(FootageFolder(tmp_path)).values()
    assert "File name too long" in reason


@pytest.mark.parametrize("path", ["gone.mp4", "file/was/a/folder.mp4"])
def test_a_path_that_is_gone_has_no_footage(tmp_path: Path, path: str) -> None:
    write(tmp_path / "file")
    assert stat_footage(tmp_path / path) is None


@pytest.mark.parametrize(
    ("path", "recursive", "expected"),
    [
        ("a.mp4", True, True),
        ("a.mp4", False, True),
        ("b/c/a.mp4", True, True),
        ("b/a.mp4", False, False),
        (".b/a.mp4", True, False),
        ("b/.c/d/a.mp4", True, False),
    ],
)
def test_events_count_only_where_the_scan_looks(path: str, recursive: bool, expected: bool) -> None:
    folder = FootageFolder(Path("/media/.card"), recursive=recursive)
    assert is_in_scope(folder, folder.path / path) is expected


A = Footage(Path("/card/a.mp4"), 1_000, 1)
B = Footage(Path("/card/b.mp4"), 1_000, 1)


def contains(seen: SeenCache, footage: Footage) -> bool:
    return seen.contains(str(footage.path), footage.size_bytes, footage.modified_ns)


def test_seen_footage_is_recognised_by_path_size_and_time() -> None:
    seen = SeenCache()
    assert not contains(seen, A)
    seen.add(A, lasting=True)
    assert contains(seen, A)
    assert not seen.contains("/card/a.mp4", 1_001, 1)
    assert not seen.contains("/card/a.mp4", 1_000, 2)
    assert not contains(seen, B)


def test_footage_that_a_complete_scan_did_not_find_is_dropped_from_the_cache() -> None:
    seen = SeenCache()
    seen.add(A, lasting=True)
    seen.add(B, lasting=False)
    assert seen.finish_scan() == 2
    seen.start_scan()
    assert contains(seen, A)
    assert seen.finish_scan() == 1
    assert not contains(seen, B)


def test_an_interrupted_scan_drops_nothing_from_the_cache() -> None:
    seen = SeenCache()
    seen.add(A, lasting=True)
    seen.start_scan()
    seen.start_scan()
    assert contains(seen, A)


def test_invalidation_keeps_only_lasting_entries() -> None:
    seen = SeenCache()
    seen.add(A, lasting=True)
    seen.add(B, lasting=False)
    assert contains(seen, B)
    seen.invalidate()
    assert contains(seen, A)
    assert not contains(seen, B)


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Counts the calls of Python and C functions in this thread: unlike seconds, the same on every machine."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, function: object) -> None:
        if event == "c_call":
            calls[getattr(function, "__name__", "")] += 1
        elif event == "call":
            calls[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def test_a_known_file_costs_a_scan_one_stat_and_few_calls(tmp_path: Path) -> None:
    files = 1000
    for number in range(files):
        write(tmp_path / f"trip-{number // 100}" / f"{number}.mp4")
    folder, seen = FootageFolder(tmp_path), SeenCache()
    for footage in walk(folder, seen):
        assert isinstance(footage, Footage)
        seen.add(footage, lasting=True)
    with counted_calls() as calls:
        assert list(walk(folder, seen)) == []
    assert calls["stat"] == files
    assert calls["open"] == 0
    # Idle with 20,000 files, the daemon may use 0.3 % of a core; `make bench` measures that.
    assert calls.total() < 15 * files


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each query of the ledger was about."""
    queries: list[int] = []
    original = Spool.states_of

    def counted(spool: Spool, footage: list[Footage]) -> object:
        if footage:
            queries.append(len(footage))
        return original(spool, footage)

    monkeypatch.setattr(Spool, "states_of", counted)
    return queries


def found(scanner: FolderScanner) -> list[str]:
    return sorted(footage.path.name for footage in scanner.scan(lambda: None, lambda: False))


def scanner_of(bench: Bench) -> FolderScanner:
    return FolderScanner(bench.folder, bench.spool, WarnOnce(), lambda: bench.wall)


def take_all(bench: Bench) -> None:
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 60.0, step=5.0)


@pytest.mark.parametrize("after_delivery", ["keep", "delete"])
def test_a_scan_without_new_files_does_not_query_the_ledger(
    bench: Bench, asked: list[int], after_delivery: str
) -> None:
    bench.folder = replace(bench.folder, after_delivery=after_delivery)  # type: ignore[arg-type]
    for second in range(10):
        bench.record(second)
    bench.record(name="no time in it.mp4")
    take_all(bench)
    scanner = scanner_of(bench)
    asked.clear()
    assert found(scanner) == []
    assert asked == [11]
    for _ in range(5):
        assert found(scanner) == []
    assert asked == [11]
    bench.record(20)
    assert len(found(scanner)) == 1
    assert asked == [11, 1]


def test_many_files_are_looked_up_in_groups(bench: Bench, asked: list[int]) -> None:
    for number in range(1001):
        (bench.card / f"{number}.mp4").touch()
    assert len(found(scanner_of(bench))) == 1001
    assert asked == [500, 500, 1]


def test_the_scan_after_a_delivery_deletes_the_footage_if_configured(bench: Bench) -> None:
    bench.folder = replace(bench.folder, after_delivery="delete")
    path = bench.record()
    take_all(bench)
    scanner = scanner_of(bench)
    assert found(scanner) == []
    bench.deliver_all()
    assert path.exists()
    assert found(scanner) == []
    assert not path.exists()


def test_footage_is_new_again_when_its_refusal_expires(bench: Bench) -> None:
    path = bench.record()
    bench.spool.refuse(Footage.from_stat(path, path.stat()), "the card may be failing", "rules", 600)
    scanner = scanner_of(bench)
    assert found(scanner) == []
    bench.wall += 599
    assert found(scanner) == []
    bench.wall += 1
    assert found(scanner) == [path.name]


def test_footage_is_new_again_after_a_retry_by_command(bench: Bench) -> None:
    path = bench.record(name="no time in it.mp4")
    take_all(bench)
    scanner = scanner_of(bench)
    assert found(scanner) == []
    bench.spool.retry([1])
    scanner.invalidate()
    assert found(scanner) == [path.name]


def test_a_scan_that_is_stopped_draws_no_conclusions(bench: Bench, asked: list[int]) -> None:
    for second in range(10):
        bench.record(second)
    take_all(bench)
    scanner = scanner_of(bench)
    assert found(scanner) == []
    (bench.card / "new.mp4").touch()
    assert list(scanner.scan(lambda: None, lambda: True)) == []
    asked.clear()
    assert found(scanner) == ["new.mp4"]
    assert asked == [1]


def test_a_folder_that_comes_and_goes_is_logged_once_each_time(bench: Bench) -> None:
    scanner = scanner_of(bench)
    with capture_logs() as logged:
        for _ in range(2):
            assert found(scanner) == []
            assert scanner.is_readable
            bench.card.rmdir()
            assert found(scanner) == []
            assert found(scanner) == []
            assert not scanner.is_readable
            bench.card.mkdir()
    assert [entry["event"] for entry in logged] == ["folder_missing", "folder_back", "folder_missing"]


def test_a_card_counts_as_present_only_while_footage_was_found_on_it(bench: Bench) -> None:
    scanner = scanner_of(bench)
    found(scanner)
    assert not scanner.has_footage
    path = bench.record()
    found(scanner)
    assert scanner.has_footage
    path.unlink()
    found(scanner)
    assert scanner.has_footage
    bench.card.rmdir()
    found(scanner)
    assert not scanner.has_footage


def test_delivered_footage_is_remembered_while_its_card_is_away(bench: Bench) -> None:
    bench.record(41, name="trip/ABC1234X_1_20260728_141441.mp4")
    take_all(bench)
    bench.deliver_all()
    bench.wall += 86_400 * (SpoolSettings(bench.card).remember_days + 1)
    bench.card.rename(bench.card.with_name("pulled"))
    bench.card.mkdir()  # the empty mount point
    take_all(bench)
    bench.card.rmdir()
    bench.card.with_name("pulled").rename(bench.card)
    take_all(bench)
    assert bench.taken == 1
    assert len(bench.states()) == 1


def test_footage_whose_card_is_pulled_during_inspection_is_not_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.record(content=b"\0\0\0\x0cftypisom" + b"x" * 100)
    pulled = path.with_name("pulled")
    original = os.open

    def pull(asked: object, *arguments: int, **options: int) -> int:
        descriptor = original(asked, *arguments, **options)  # type: ignore[arg-type]
        if asked == path:
            path.rename(pulled)
        return descriptor

    intake = bench.intake()
    intake.step()
    bench.seconds += 60
    monkeypatch.setattr(OpenFootage, "is_being_written", lambda opened: False)
    monkeypatch.setattr(os, "open", pull)
    intake.step()
    monkeypatch.undo()
    assert bench.states() == []
    pulled.rename(path)
    bench.pass_time(intake, 120.0, step=5.0)
    assert len(bench.states()) == 1


def test_without_any_event_the_scan_takes_everything_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_instance() -> object:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("agent.intake.watcher.Observer", no_instance)
    intake = bench.intake()
    intake.step()
    for second in range(10):
        bench.record(second, name=f"trip-{second}/ABC1234X_1_20260728_1414{second:02d}.mp4")
    bench.pass_time(intake, 70.0)
    assert len(bench.states()) == 10
