from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Limits
from agent.media.segments import (
    FILE_OVERHEAD_BYTES,
    MARGIN,
    PACKET_OVERHEAD_BYTES,
    GopTooLarge,
    Packet,
    Segment,
    gops,
    plan_segments,
    round_seconds,
    segment_times,
)


def video(seconds: float | None, *, key: bool = False, size: int = 1000, good: bool = True) -> Packet:
    return Packet(True, seconds, 0.25, size, key, is_intact=good)


def sound(seconds: float, size: int = 100) -> Packet:
    return Packet(False, seconds, 0.02, size, True)


def gop(start: float, seconds: float, size_bytes: int, *, good: bool = True, first: int = 0) -> Segment:
    return Segment(first, start, start + seconds, size_bytes, good)


def steady(count: int, seconds: float, size_bytes: int) -> list[Segment]:
    return [gop(number * seconds, seconds, size_bytes, first=number * 10) for number in range(count)]


def test_a_gop_runs_from_key_frame_to_key_frame_with_its_audio() -> None:
    packets = [
        video(5.0, key=True),
        sound(5.0),
        video(5.25),
        video(5.5, key=True),
    ]
    first, second = gops(packets)
    assert first == Segment(0, 0.0, 0.5, FILE_OVERHEAD_BYTES + 3 * PACKET_OVERHEAD_BYTES + 2100)
    assert (second.first_frame, second.start_seconds, second.end_seconds) == (2, 0.5, 0.75)


def test_frames_before_the_first_key_frame_are_left_out() -> None:
    (only,) = gops([video(9.5), sound(9.5), video(9.75), video(10.0, key=True), video(10.25)])
    assert (only.first_frame, only.start_seconds) == (0, 0.5)
    assert only.size_bytes == FILE_OVERHEAD_BYTES + 2 * (1000 + PACKET_OVERHEAD_BYTES)


def test_reordered_frames_change_nothing() -> None:
    first, second = gops([video(0.0, key=True), video(0.75), video(0.25), video(0.5), video(1.0, key=True)])
    assert (first.end_seconds, second.start_seconds) == (1.0, 1.0)


def test_a_gap_in_the_recording_belongs_to_no_segment() -> None:
    first, second = gops([video(0.0, key=True), video(0.25), video(60.0, key=True)])
    assert first.end_seconds == 0.5
    assert second.start_seconds == 60.0


def test_missing_or_backward_timestamps_are_tolerated() -> None:
    found = list(gops([video(5.0, key=True), video(None), video(1.0, key=True), video(None, key=True)]))
    assert len(found) == 3
    assert all(one.seconds >= 0 for one in found)


def test_a_gop_with_a_zeroed_frame_is_not_intact() -> None:
    packets = [video(0.0, key=True), video(0.25, good=False), video(0.5), video(0.75, key=True)]
    assert [one.is_intact for one in gops(packets)] == [False, True]


def test_a_recording_without_key_frames_has_no_gops() -> None:
    assert list(gops([video(0.0), video(0.1), sound(0.1)])) == []


def test_a_segment_ends_before_the_gop_that_exceeds_the_bytes() -> None:
    segments = plan_segments(steady(10, 2.0, 300_000), Limits(1_000_000, 300))
    assert [segment.first_frame for segment in segments] == [0, 30, 60, 90]
    assert all(segment.size_bytes <= 1_000_000 * MARGIN for segment in segments)


def test_a_segment_ends_before_the_gop_that_exceeds_the_seconds() -> None:
    segments = plan_segments(steady(100, 10.0, 10_000), Limits(50_000_000, 300))
    assert [segment.seconds for segment in segments] == [290.0, 290.0, 290.0, 130.0]


def test_a_single_gop_may_reach_the_limit_itself() -> None:
    assert len(plan_segments([gop(0, 10.0, 1_000_000)], Limits(1_000_000, 10))) == 1


@pytest.mark.parametrize(
    ("large", "words"),
    [
        (gop(12.0, 2.0, 1_000_001), "(at second 12) has 1,000,001 bytes and the limit is 1,000,000"),
        (gop(7.0, 11.5, 1_000), "(at second 7) lasts 12 s and the limit is 10 s"),
    ],
)
def test_a_gop_over_a_limit_is_refused_with_what_to_change(large: Segment, words: str) -> None:
    with pytest.raises(GopTooLarge) as refused:
        plan_segments([*steady(2, 2.0, 1_000), large], Limits(1_000_000, 10))
    assert words in refused.value.reason
    assert "more key frames in the camera, or allow conform.reencode" in refused.value.reason


def test_damage_is_a_segment_of_its_own_of_any_size() -> None:
    found = steady(6, 2.0, 100_000)
    found = [replace(one, is_intact=number not in (2, 3)) for number, one in enumerate(found)]
    segments = plan_segments(found, Limits(150_000, 5))
    assert [(segment.start_seconds, segment.end_seconds, segment.is_intact) for segment in segments] == [
        (0.0, 2.0, True),
        (2.0, 4.0, True),
        (4.0, 8.0, False),
        (8.0, 10.0, True),
        (10.0, 12.0, True),
    ]


def test_a_gop_is_measured_in_the_seconds_that_the_api_sees() -> None:
    assert len(plan_segments([gop(0, 10.3, 1)], Limits(1_000_000, 10))) == 1
    with pytest.raises(GopTooLarge):
        plan_segments([gop(0, 10.5, 1)], Limits(1_000_000, 10))


def test_segments_share_the_second_at_which_they_meet() -> None:
    segments = [gop(0, 59.5, 1), gop(59.5, 60.0, 1), gop(119.5, 0.2, 1)]
    assert segment_times(segments) == [(0, 60), (60, 120), (120, 121)]


durations = st.floats(0.04, 20.0)


@st.composite
def recordings(draw: st.DrawFn) -> list[Segment]:
    """Groups of any length and size, one after the other."""
    lengths = draw(st.lists(durations, min_size=1, max_size=60))
    ends = list(itertools.accumulate(lengths))
    starts = [0.0, *ends[:-1]]
    sizes = draw(st.lists(st.integers(5_000, 2_000_000), min_size=len(ends), max_size=len(ends)))
    good = draw(st.lists(st.booleans(), min_size=len(ends), max_size=len(ends)))
    rows = zip(itertools.count(), starts, ends, sizes, good, strict=False)
    return [Segment(number, start, end, size, is_intact) for number, start, end, size, is_intact in rows]


@given(recordings(), st.integers(2_000_000, 9_000_000), st.integers(20, 300))
def test_segments_of_any_recording_fit_and_miss_nothing(found: list[Segment], max_bytes: int, max_seconds: int) -> None:
    segments = plan_segments(iter(found), Limits(max_bytes, max_seconds))
    assert [(p.start_seconds, p.first_frame) for p in segments] == [
        (p.start_seconds, p.first_frame) for p in found if p in _firsts(segments, found)
    ]
    assert segments[0].start_seconds == 0.0
    assert segments[-1].end_seconds == found[-1].end_seconds
    for before, after in itertools.pairwise(segments):
        assert before.end_seconds == after.start_seconds
    for segment, (start, end) in zip(segments, segment_times(segments), strict=True):
        if segment.is_intact:
            assert segment.size_bytes <= max_bytes
            assert round_seconds(segment.seconds) <= max_seconds
            assert end - start <= max_seconds + len(segments)


def _firsts(segments: Sequence[Segment], found: Sequence[Segment]) -> list[Segment]:
    numbers = {segment.first_frame for segment in segments}
    return [one for one in found if one.first_frame in numbers]


@given(st.lists(st.floats(1.0, 299.0), min_size=1, max_size=50), st.integers(1, 300))
def test_segment_times_have_no_overlap_no_gap_and_no_drift(lengths: list[float], max_seconds: int) -> None:
    ends = list(itertools.accumulate(lengths))
    segments = [Segment(0, end - length, end, 1) for end, length in zip(ends, lengths, strict=True)]
    segments = [
        replace(segment, start_seconds=start) for segment, start in zip(segments, [0.0, *ends[:-1]], strict=True)
    ]
    times = segment_times(segments)
    for (_, end), (start, _) in itertools.pairwise(times):
        assert start == end
    for segment, (start, end) in zip(segments, times, strict=True):
        assert abs(start - segment.start_seconds) <= 0.5
        assert abs(end - segment.end_seconds) <= 0.5


def test_memory_holds_segments_not_packets() -> None:
    """Whatever kept every packet of a long recording would be killed on a small device."""
    import tracemalloc

    def an_hour() -> Iterator[Packet]:
        for number in range(18_000):
            yield video(number / 5, key=number % 20 == 0)

    tracemalloc.start()
    segments = plan_segments(gops(an_hour()), Limits(50_000_000, 300))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(segments) == 13
    assert peak < 100_000
