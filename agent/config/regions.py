"""The regions of the Fleet API: country code to base URL (the vendor's public reference, spec 1.26.0622.1)."""

from __future__ import annotations

from collections.abc import Mapping

BASE_URLS: Mapping[str, str] = {
    "au": "https://fleetapi-au.cartrack.com/rest",
    "bw": "https://fleetapi-bw.cartrack.com/rest",
    "es": "https://fleetapi-es.cartrack.com/rest",
    "hk": "https://fleetapi-hk.cartrack.com/rest",
    "id": "https://fleetapi-id.cartrack.com/rest",
    "ke": "https://fleetapi-ke.karooooo.com/rest",
    "kh": "https://fleetapi-kh.cartrack.com/rest",
    "me": "https://fleetapi-me.cartrack.com/rest",
    "mw": "https://fleetapi-mw.cartrack.com/rest",
    "my": "https://fleetapi-my.cartrack.com/rest",
    "mz": "https://fleetapi-mz.cartrack.com/rest",
    "na": "https://fleetapi-na.cartrack.com/rest",
    "ng": "https://fleetapi-ng.cartrack.com/rest",
    "nz": "https://fleetapi-nz.cartrack.com/rest",
    "ph": "https://fleetapi-ph.cartrack.com/rest",
    "pl": "https://fleetapi-pl.cartrack.com/rest",
    "pt": "https://fleetapi-pt.cartrack.com/rest",
    "rw": "https://fleetapi-rw.cartrack.com/rest",
    "sa": "https://fleetapi-sa.karooooo.com/rest",
    "sg": "https://fleetapi-sg.cartrack.com/rest",
    "sw": "https://fleetapi-sw.cartrack.com/rest",
    "th": "https://fleetapi-th.cartrack.com/rest",
    "tz": "https://fleetapi-tz.cartrack.com/rest",
    "vn": "https://fleetapi-vn.cartrack.com/rest",
    "za": "https://fleetapi-za.cartrack.com/rest",
    "zm": "https://fleetapi-zm.cartrack.com/rest",
    "znz": "https://fleetapi-znz.cartrack.com/rest",
    "zw": "https://fleetapi-zw.cartrack.com/rest",
}
