from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Conform, Limits
from agent.intake.identify.recording import Media, Recording
from agent.intake.planning import (
    AsIs,
    Cut,
    Plan,
    PlanSettings,
    Reencode,
    Reject,
    Repack,
    Salvage,
    clips_of,
    plan,
)
from agent.media.segments import Segment
from agent.model import Footage

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
LIMITS = Limits(50_000_000, 300)


def recording(
    seconds: float = 60.0, size_bytes: int = 1_000, container: str = "MP4", codec: str | None = "avc1"
) -> Recording:
    media = Media(container, codec, seconds)
    return Recording(Footage(Path("/dev/null"), size_bytes, 1), media, "ABC1234X", 1, START)


def damaged(is_whole: bool = True, may_hold_zeros: bool = False, seconds: float = 60.0) -> Recording:
    whole = recording(seconds)
    return replace(whole, media=replace(whole.media, is_whole=is_whole, may_hold_zeros=may_hold_zeros))


def settings(conform: Conform = Conform(), *, has_ffmpeg: bool = True) -> PlanSettings:  # noqa: B008 - frozen
    return PlanSettings(LIMITS, conform, lambda: has_ffmpeg)


def seconds_of(decided: Plan) -> int:
    assert isinstance(decided, AsIs)
    return decided.clip.key.duration_seconds


@pytest.mark.parametrize(("seconds", "whole"), [(0.2, 1), (1.5, 2), (2.5, 3), (3.5, 4), (2.499, 2), (300.3, 300)])
def test_seconds_are_rounded_half_up_and_are_at_least_one(seconds: float, whole: int) -> None:
    assert seconds_of(plan(recording(seconds), settings())) == whole


@pytest.mark.parametrize(("seconds", "fits"), [(300.0, True), (300.3, True), (300.499, True), (300.5, False)])
def test_the_limit_is_compared_with_the_seconds_that_the_api_sees(seconds: float, fits: bool) -> None:
    assert isinstance(plan(recording(seconds), settings()), AsIs) == fits
    without_conforming = plan(recording(seconds), settings(Conform(enabled=False)))
    assert isinstance(without_conforming, AsIs) == fits


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (recording(size_bytes=LIMITS.max_bytes), AsIs),
        (recording(size_bytes=LIMITS.max_bytes + 1), Cut),
        (recording(301.0), Cut),
        (recording(container="TS"), Repack),
        (recording(301.0, container="TS"), Cut),
        (recording(codec=None), Reject),
        (recording(codec="hvc1"), Reject),
        (recording(0.0), Reject),
        (damaged(is_whole=False), Salvage),
        (damaged(may_hold_zeros=True), Salvage),
    ],
)
def test_what_fits_stays_as_it_is_and_the_rest_is_made_to_fit(what: Recording, expected: type[Plan]) -> None:
    assert type(plan(what, settings())) is expected


def test_another_codec_is_reencoded_only_if_allowed() -> None:
    assert isinstance(plan(recording(codec="hvc1"), settings(Conform(reencode=True))), Reencode)
    assert isinstance(plan(recording(codec="hvc1"), settings(Conform(enabled=False, reencode=True))), Reject)


def test_without_ffmpeg_what_needs_it_is_rejected_and_tried_again() -> None:
    decided = plan(recording(container="TS"), settings(has_ffmpeg=False))
    assert isinstance(decided, Reject)
    assert "the agent needs ffmpeg" in decided.reason
    assert decided.retry_after_seconds


def test_without_ffmpeg_suspected_zeros_hold_nothing_back() -> None:
    decided = plan(damaged(may_hold_zeros=True), settings(has_ffmpeg=False))
    assert isinstance(decided, AsIs)
    assert "zeros" in decided.suspicion


def test_suspected_zeros_come_with_the_plan_for_an_intact_file() -> None:
    decided = plan(damaged(may_hold_zeros=True), settings())
    assert isinstance(decided, Salvage)
    assert decided.if_intact == plan(damaged(), settings())
    certain = plan(damaged(is_whole=False), settings())
    assert isinstance(certain, Salvage)
    assert certain.if_intact is None


RECORDINGS = st.builds(
    recording,
    seconds=st.one_of(st.floats(0.0, 700.0), st.sampled_from((0.0, 0.4, 299.6, 300.3, 300.4999, 300.5, 301.0))),
    size_bytes=st.sampled_from((0, 1, 50_000_000, 50_000_001, 200_000_000)),
    container=st.sampled_from(("MP4", "MOV", "TS", "AVI", "MKV")),
    codec=st.sampled_from(("avc1", "avc3", "hvc1", "mp4v", "", None)),
)
FINDINGS = st.fixed_dictionaries({"is_whole": st.booleans(), "may_hold_zeros": st.booleans()})
CONFORM = st.builds(Conform, enabled=st.booleans(), reencode=st.booleans())


@given(RECORDINGS, FINDINGS, CONFORM, st.booleans())
def test_only_whole_h264_mp4_within_the_limits_stays_as_it_is(
    found: Recording, findings: dict[str, bool], conform: Conform, has_ffmpeg: bool
) -> None:
    media = replace(found.media, **findings)  # type: ignore[arg-type]  # both are flags
    found = replace(found, media=media)
    decided = plan(found, settings(conform, has_ffmpeg=has_ffmpeg))
    fits = (
        media.codec in ("avc1", "avc3")
        and media.container == "MP4"
        and media.is_whole
        and found.footage.size_bytes <= LIMITS.max_bytes
        and 0 < media.duration_seconds < LIMITS.max_seconds + 0.5
    )
    is_doubtful = media.may_hold_zeros and conform.enabled
    assert isinstance(decided, AsIs) == (fits and not (is_doubtful and has_ffmpeg))
    if isinstance(decided, AsIs):
        assert 1 <= decided.clip.key.duration_seconds <= LIMITS.max_seconds
        assert bool(decided.suspicion) == is_doubtful
    if isinstance(decided, Cut | Repack | Reencode | Salvage):
        assert conform.enabled
        assert has_ffmpeg


def test_the_clips_of_segments_share_the_seconds_at_which_they_meet() -> None:
    segments = [Segment(0, 0.0, 2.5, 1), Segment(9, 2.5, 4.0, 1, is_intact=False), Segment(20, 4.0, 7.49, 1)]
    first, second = clips_of(recording(), segments, "cut", ["zeros"])
    assert [(clip.key.start.second, clip.key.end.second) for clip in (first, second)] == [(0, 3), (4, 7)]
    assert (first.piece, second.piece, second.pieces) == (0, 1, 2)
    assert second.comments == "Damaged: zeros."
