"""What an error's words are taken for: a wrong guess refuses a good clip."""

from __future__ import annotations

import pytest

from agent.vision.error_mapping import ErrorClass, classify


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("The file is not of MP4 video format.", ErrorClass.FILE),
        ("The duration must not be longer than 5 minutes.", ErrorClass.FILE),
        ("The file is larger than 50 MB.", ErrorClass.FILE),
        ("The registration does not exist or has no active contract.", ErrorClass.REGISTRATION),
        ("Too many uploads, try again in a few minutes.", ErrorClass.UNKNOWN),
        ("Storage temporarily unavailable, retry in 5 minutes", ErrorClass.UNKNOWN),
        ("The vehicle upload timed out", ErrorClass.UNKNOWN),
        ("Something went wrong", ErrorClass.UNKNOWN),
    ],
)
def test_words_are_taken_for_what_they_mean(words: str, meant: ErrorClass) -> None:
    assert classify(words) is meant
