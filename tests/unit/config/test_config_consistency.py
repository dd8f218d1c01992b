from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Config

API = 'api = { region = "za", username = "fleet" }\n'

Read = Callable[..., Config]
ErrorsOf = Callable[..., list[str]]


def footage(*folders: str) -> str:
    return API + "".join(f'[[footage]]\npath = "{folder}"\n' for folder in folders)


def test_folders_beside_each_other_are_fine(read: Read) -> None:
    config = read(footage("/media/card/front", "/media/card/frontal", "/media/card/rear"))
    assert len(config.footage) == 3


def test_a_folder_must_not_be_given_twice(errors_of: ErrorsOf, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "card")
    expected = ["footage[1].path: is the same folder as that of footage[0]; remove one of the two"]
    assert errors_of(footage("card", f"{tmp_path}/card/")) == expected
    assert errors_of(footage("card", "link")) == expected
    assert errors_of(footage("card", "other/../card")) == expected


def test_a_folder_inside_another_would_be_taken_twice(errors_of: ErrorsOf) -> None:
    told = (
        "lies inside footage[{outer}] (/media/card): its files would be taken twice; "
        "remove one of the two, or set recursive = false in footage[{outer}]"
    )
    assert errors_of(footage("/media/card", "/media/card/DCIM")) == ["footage[1].path: " + told.format(outer=0)]
    assert errors_of(footage("/media/card/DCIM", "/media/card")) == ["footage[0].path: " + told.format(outer=1)]


def test_a_folder_inside_one_that_is_not_recursive_is_fine(read: Read) -> None:
    text = f'{footage("/media/card")}recursive = false\n[[footage]]\npath = "/media/card/DCIM"'
    assert len(read(text).footage) == 2


@pytest.mark.parametrize("directory", ["/media/card", "/media/card/spool"])
def test_a_spool_inside_the_footage_would_feed_itself(errors_of: ErrorsOf, directory: str) -> None:
    assert errors_of(f'{footage("/media/card")}[spool]\ndirectory = "{directory}"') == [
        f"spool.directory: {directory} lies inside footage[0] (/media/card): its clips would be taken again "
        "without end; choose a directory outside of all footage"
    ]


def test_footage_inside_the_spool_is_refused(errors_of: ErrorsOf) -> None:
    assert errors_of(footage("/var/lib/vision-ingest/footage")) == [
        "footage[0].path: /var/lib/vision-ingest/footage lies inside the spool (/var/lib/vision-ingest), "
        "which the service keeps for itself; choose a folder outside of the spool"
    ]


def test_the_largest_clip_must_fit_into_a_batch_and_into_the_spool(errors_of: ErrorsOf) -> None:
    assert errors_of(f'{footage("/c")}[upload]\nbatch_bytes = "40 MB"\n[spool]\nmax_bytes = "49 MB"') == [
        "upload.batch_bytes: 40000000 is less than one clip may have; allowed is at least limits.max_bytes, 50000000",
        "spool.max_bytes: 49000000 is less than one clip may have; allowed is at least limits.max_bytes, 50000000",
    ]


def test_small_batches_are_fine_for_small_clips(read: Read) -> None:
    config = read(f'{footage("/c")}[upload]\nbatch_bytes = "5 MB"\n[limits]\nmax_bytes = "5 MB"')
    assert config.upload.batch_bytes == config.limits.max_bytes == 5_000_000
