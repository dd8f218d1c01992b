from __future__ import annotations

import pytest

from agent.config.regions import BASE_URLS


def test_every_published_region_is_known() -> None:
    published = "au bw es hk id ke kh me mw my mz na ng nz ph pl pt rw sa sg sw th tz vn za zm znz zw"
    assert " ".join(BASE_URLS) == published


@pytest.mark.parametrize("country", sorted(BASE_URLS))
def test_kenya_and_saudi_arabia_live_on_karooooo_and_all_others_on_cartrack(country: str) -> None:
    domain = "karooooo" if country in {"ke", "sa"} else "cartrack"
    assert BASE_URLS[country] == f"https://fleetapi-{country}.{domain}.com/rest"
