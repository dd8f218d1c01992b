"""What an error's words are taken for: a wrong guess refuses a good clip."""

from __future__ import annotations

import pytest

from agent.vision.error_classes import About, about


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("The file is not of MP4 video format.", About.FILE),
        ("The duration must not be longer than 5 minutes.", About.FILE),
        ("The file is larger than 50 MB.", About.FILE),
        ("The registration does not exist or has no active contract.", About.REGISTRATION),
        ("Too many uploads, try again in a few minutes.", About.UNKNOWN),
        ("Storage temporarily unavailable, retry in 5 minutes", About.UNKNOWN),
        ("The vehicle upload timed out", About.UNKNOWN),
        ("Something went wrong", About.UNKNOWN),
    ],
)
def test_words_are_taken_for_what_they_mean(words: str, meant: About) -> None:
    assert about(words) is meant
