"""How camera families name their files: data, interpreted by `agent.intake.identify.filename`.

A new family is one more entry of `_ALL`: `make test` checks its examples, and docs/cameras.md must have a row for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class EventTag:
    """Why a recording is worth more than another: an event, a lock, parking.

    Args:
        word: for people; also the API's comment, if there is no other.
        high_priority: such recordings are delivered before others.
    """

    word: str
    high_priority: bool = True


EVENT = EventTag("event")
IMPACT = EventTag("impact while parked")
LOCKED = EventTag("locked")
MANUAL = EventTag("saved")
ALARM = EventTag("alarm")
PARKING = EventTag("parking", high_priority=False)
MOTION = EventTag("motion", high_priority=False)
TIMELAPSE = EventTag("time lapse", high_priority=False)

# Whole names of the folders in which recorders keep such footage. Many recorders lock a clip by moving it into one.
_FOLDERS = (
    (re.compile(r"ro|locked|lock|protected", re.IGNORECASE), LOCKED),
    (re.compile(r"(?:\d{3})?(?:events?|evt|emergency|emr|sos)(?:_rec)?|sentryclips", re.IGNORECASE), EVENT),
    (re.compile(r"(?:\d{3}saved|savedclips|saved|manual(?:_rec)?)", re.IGNORECASE), MANUAL),
    (re.compile(r"parking(?:_rec)?|park(?:_rec)?", re.IGNORECASE), PARKING),
    (re.compile(r"motion_rec", re.IGNORECASE), MOTION),
    (re.compile(r"lapse|(?:\d{3})?tlpse|timelapse(?:_rec)?", re.IGNORECASE), TIMELAPSE),
)


def tag_for_folder(name: str) -> EventTag | None:
    """The tag of the footage in a folder of this name; None if it has none."""
    return next((tag for pattern, tag in _FOLDERS if pattern.fullmatch(name)), None)


@dataclass(frozen=True, slots=True)
class Created:
    """What the date inside a family's files (mvhd.creation_time) means.

    Args:
        clock: the standard says UTC, but many cameras write their local time.
        moment: when the camera takes the time: as the recording starts, or as it closes the file.
    """

    clock: Literal["local", "utc"]
    moment: Literal["start", "close"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One way of naming files.

    Args:
        name: as in `footage.preset`.
        family: the cameras, for people.
        pattern: searched in the path relative to the watched folder, `/` between its parts. Its named groups are
            those of a user's `pattern`: registration, camera, start, Y or y, m, d, H, M, S, event; and camera2, event2
            where the name may have them in another place.
        examples: paths that match this pattern, and no other preset's, to what is read from them: "camera 2,
            2026-07-28 14:14:41, locked"; "?" stands for a camera that the configuration must number.
        cameras: the family's words for its channels, in lower case, in names and folders; "" is the channel where
            neither has one. The folder's own `cameras` takes precedence.
        clock: whether the time in the name is the camera's local time, UTC, or missing.
        created: what the date in the file means, for names without a time, and to check the zone; None if unknown.
        event_tags: words of the group `event`, in lower case, to the tag of the recording; "" where it is empty.
            None: any word marks an event.
        proxies: whole names of proxy files (smaller copies of a recording) and of what else lies beside it: ignored.
        refused: why such files can never be used, and what to change on the camera; empty if they can.
    """

    name: str
    family: str
    pattern: re.Pattern[str]
    examples: Mapping[str, str]
    cameras: Mapping[str, int] = field(default_factory=dict)
    clock: Literal["local", "utc", "none"] = "local"
    created: Created | None = None
    event_tags: Mapping[str, EventTag] | None = field(default_factory=dict)
    proxies: re.Pattern[str] | None = None
    refused: str = ""


AUTO = "auto"


def _named(expression: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/){expression}$", re.IGNORECASE | re.ASCII)


def _proxies(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE | re.ASCII)


_DAY = r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)"
_SHORT_DAY = r"(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d)"
_DASHED_DAY = r"(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
_CLOCK = r"(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)"
_FRONT_REAR_INSIDE = {"f": 1, "r": 2, "i": 3}

_ALL = (
    Preset(
        "plain",
        "names that say everything",
        _named(
            r"(?P<registration>[^/_]{1,40})"
            r"_(?:(?:channel|camera|cam|ch)[- ]?)?(?P<camera>\d{1,3}|[a-z][a-z-]{0,19})"
            r"_(?P<Y>\d{4})(?P<ymd>-?)(?P<m>\d\d)(?P=ymd)(?P<d>\d\d)"
            r"[T_-]?(?P<H>\d\d)(?P<hms>[-.]?)(?P<M>\d\d)(?P=hms)(?P<S>\d\d)"
            r"(?:_(?P<event>event|alarm|panic|sos))?\.(?:mp4|mov|ts|avi|mkv)"
        ),
        examples={
            "ABC1234X_1_20260728_141441.mp4": "ABC1234X, camera 1, 2026-07-28 14:14:41",
            "ABC1234X_1_20260728_141441_event.mp4": "ABC1234X, camera 1, 2026-07-28 14:14:41, event",
            "ABC1234X_2_20260728141441.MP4": "ABC1234X, camera 2, 2026-07-28 14:14:41",
            "ABC 1234_ch2_20260728-141441_SOS.mp4": "ABC 1234, camera 2, 2026-07-28 14:14:41, SOS",
            "ABC-1234_CAM03_20260728T141441.mp4": "ABC-1234, camera 3, 2026-07-28 14:14:41",
            "ABC1234X_camera-4_2026-07-28_14-41-41.mp4": "ABC1234X, camera 4, 2026-07-28 14:41:41",
            "trip 7/ABC1234X_F_2026-07-28T14.41.41_alarm.mp4": "ABC1234X, camera ?, 2026-07-28 14:41:41, alarm",
            "ABC1234X_1_20260728_141441.ts": "ABC1234X, camera 1, 2026-07-28 14:14:41",
        },
        event_tags={"event": EVENT, "alarm": ALARM, "panic": EventTag("panic"), "sos": EventTag("SOS")},
    ),
    Preset(
        "blackvue",
        "BlackVue",
        _named(rf"{_DAY}_{_CLOCK}_(?P<event>[NEPMIOATBRXGDLYF])(?P<camera>[FRIO])\.mp4"),
        examples={
            "BlackVue/Record/20181026_135003_PF.mp4": "camera 1, 2018-10-26 13:50:03, parking",
            "20181026_135003_NR.mp4": "camera 2, 2018-10-26 13:50:03",
            "20181026_135003_EO.mp4": "camera 4, 2018-10-26 13:50:03, event",
        },
        cameras=_FRONT_REAR_INSIDE | {"o": 4},
        created=Created("utc", "close"),
        event_tags={
            "e": EVENT,
            "p": PARKING,
            "i": IMPACT,
            "m": MANUAL,
            "o": EventTag("overspeed"),
            "a": EventTag("acceleration"),
            "t": EventTag("cornering"),
            "b": EventTag("braking"),
            "r": EventTag("geofence entered"),
            "x": EventTag("geofence left"),
            "g": EventTag("geofence passed"),
            "d": EventTag("drowsiness"),
            "l": EventTag("distraction"),
            "y": EventTag("no seat belt"),
            "f": EventTag("no driver seen"),
        },
        proxies=_proxies(r"\d{8}_\d{6}_[A-Z](?:[FRIO](?:[LS]\.mp4|\.thm)|\.gps|\.3gf)"),
    ),
    Preset(
        "viofo",
        "Viofo",
        _named(
            rf"(?P<Y>\d{{4}})_(?P<m>\d\d)(?P<d>\d\d)_{_CLOCK}_(?:\d+)?(?P<event>[PE]?)(?P<camera>[FRTI])\.(?:MP4|TS)"
        ),
        examples={
            "DCIM/Movie/2026_0728_141441_001F.MP4": "camera 1, 2026-07-28 14:14:41",
            "DCIM/Movie/RO/2026_0728_141441_000123R.MP4": "camera 2, 2026-07-28 14:14:41, locked",
            "DCIM/Movie/Parking/2026_0728_141441_000123PR.MP4": "camera 2, 2026-07-28 14:14:41, parking",
            "2026_0728_141441_F.MP4": "camera 1, 2026-07-28 14:14:41",
            "2026_0728_141441_001F.TS": "camera 1, 2026-07-28 14:14:41",
        },
        cameras=_FRONT_REAR_INSIDE | {"t": 4},
        event_tags={"p": PARKING, "e": EVENT},
    ),
    Preset(
        "novatek",
        "Novatek cameras (A119 and unbranded)",
        _named(rf"(?P<Y>\d{{4}})_(?P<m>\d\d)(?P<d>\d\d)_{_CLOCK}_\d+(?P<camera>[AB]?)\.(?:MP4|MOV|TS)"),
        examples={
            "2016_1119_113330_021.MOV": "camera 1, 2016-11-19 11:33:30",
            "DCIM/MOVIE/RO/2017_0101_060101_001A.MP4": "camera 1, 2017-01-01 06:01:01, locked",
            "2017_0101_060101_001B.MP4": "camera 2, 2017-01-01 06:01:01",
        },
        cameras={"": 1, "a": 1, "b": 2},
    ),
    Preset(
        "novatek14",
        "Novatek cameras with the date in one piece, DDPai, FitCamX",
        _named(rf"{_DAY}{_CLOCK}_\d{{2,7}}(?:_(?P<camera>A)|(?P<camera2>[FRI])|[A-Z])?\.(?:MP4|TS|MOV)"),
        examples={
            "20230309061733_000000.MP4": "camera 1, 2023-03-09 06:17:33",
            "20260728141441_0060_A.mp4": "camera 2, 2026-07-28 14:14:41",
            "20260728141441_073648A.TS": "camera 1, 2026-07-28 14:14:41",
            "Movie_E/20260728141441_073648A.TS": "camera 2, 2026-07-28 14:14:41",
            "20260728141441_0060R.mp4": "camera 2, 2026-07-28 14:14:41",
        },
        # The letter A alone is FitCamX's way of ending every name; its rear camera has a folder of its own.
        cameras=_FRONT_REAR_INSIDE | {"": 1, "a": 2, "movie_e": 2},
    ),
    Preset(
        "ddpai",
        "DDPai, events and parking",
        _named(rf"(?P<event2>[GSQ])_{_DAY}{_CLOCK}_\d{{2,5}}_(?:(?P<event>[LX])|\w{{1,4}})\.mp4"),
        examples={
            "G_20260728141441_0060_L.mp4": "camera 1, 2026-07-28 14:14:41, event",
            "G_20260728141441_0060_X.mp4": "camera 1, 2026-07-28 14:14:41, parking",
            "S_20260728141441_0060_T.mp4": "camera 1, 2026-07-28 14:14:41, parking",
        },
        cameras={"": 1},
        event_tags={"l": EVENT, "x": PARKING, "s": PARKING, "q": PARKING},
    ),
    Preset(
        "vantrue",
        "Vantrue",
        _named(rf"{_DAY}_{_CLOCK}_\d+_(?P<event>[NEP])_(?P<camera>[ABC])\.MP4"),
        examples={
            "20240131_101500_0012_N_A.MP4": "camera 1, 2024-01-31 10:15:00",
            "20240131_101500_0012_E_B.MP4": "camera 2, 2024-01-31 10:15:00, event",
            "20240131_101500_0012_P_C.MP4": "camera 3, 2024-01-31 10:15:00, parking",
        },
        cameras={"a": 1, "b": 2, "c": 3},
        event_tags={"e": EVENT, "p": PARKING},
    ),
    Preset(
        "thinkware",
        "Thinkware",
        _named(
            r"(?P<event>REC|EVT|PARK|MAN)_(?P<Y>\d{4})_(?P<m>\d\d)_(?P<d>\d\d)"
            r"_(?P<H>\d\d)_(?P<M>\d\d)_(?P<S>\d\d)_(?P<camera>[FR])\.MP4"
        ),
        examples={
            "cont_rec/REC_2026_06_01_21_16_47_F.MP4": "camera 1, 2026-06-01 21:16:47",
            "evt_rec/EVT_2026_06_01_21_16_47_R.MP4": "camera 2, 2026-06-01 21:16:47, event",
            "PARK_2026_06_01_21_16_47_F.MP4": "camera 1, 2026-06-01 21:16:47, parking",
        },
        cameras=_FRONT_REAR_INSIDE,
        event_tags={"evt": EVENT, "park": PARKING, "man": MANUAL},
    ),
    Preset(
        "nextbase",
        "Nextbase",
        _named(rf"{_SHORT_DAY}_{_CLOCK}_\d{{3}}_(?P<camera>[BFR])H\.MP4"),
        examples={
            "240915_143027_001_FH.MP4": "camera 1, 2024-09-15 14:30:27",
            "240915_143027_001_RH.MP4": "camera 2, 2024-09-15 14:30:27",
        },
        cameras={"f": 1, "r": 2, "b": 3},
        proxies=_proxies(r"\d{6}_\d{6}_\d{3}_[BFR]L\.MP4"),
    ),
    Preset(
        "mivue",
        "Mio MiVue, iBox, Navitel",
        _named(rf"FILE{_SHORT_DAY}-{_CLOCK}(?:-\d{{6}})?(?P<camera>[FRI]?)\.(?:MP4|MOV)"),
        examples={
            "Normal/FILE240131-101500F.MP4": "camera 1, 2024-01-31 10:15:00",
            "Event/FILE240131-101500-000123R.MP4": "camera 2, 2024-01-31 10:15:00, event",
            "FILE240131-101500.MP4": "camera 1, 2024-01-31 10:15:00",
        },
        cameras=_FRONT_REAR_INSIDE | {"": 1},
        proxies=_proxies(r"FILE\d{6}-\d{6}.*\.NMEA"),
    ),
    Preset(
        "garmin",
        "Garmin Dash Cam",
        _named(r"GRM(?P<event>[NT])\d{4}\.MP4"),
        examples={
            "DCIM/105UNSVD/GRMN0001.MP4": "camera 1, no time",
            "DCIM/100EVENT/GRMN0002.MP4": "camera 1, no time, event",
            "GRMT0054.MP4": "camera 1, no time, time lapse",
        },
        cameras={"": 1},
        clock="none",
        created=Created("local", "start"),
        event_tags={"t": TIMELAPSE},
        proxies=_proxies(r"GRM[NT]\d{4}\.(?:GLV|THM)"),
    ),
    Preset(
        "gopro",
        "GoPro",
        _named(r"(?:G[HXPS](?:\d\d|[A-Z]{2})\d{4}|GOPR\d{4})\.MP4"),
        examples={
            "DCIM/100GOPRO/GX010123.MP4": "camera 1, no time",
            "GOPR1234.MP4": "camera 1, no time",
            "GHAA0042.MP4": "camera 1, no time",
        },
        cameras={"": 1},
        clock="none",
        created=Created("local", "close"),
        proxies=_proxies(r"G[\w]{7}\.(?:LRV|THM)"),
    ),
    Preset(
        "70mai",
        "70mai",
        _named(
            rf"(?P<event>NO|EV|LA|PA){_DAY}-{_CLOCK}(?:-\d+)?(?P<camera>[FBIR])?(?:-\d{{14}})?(?P<camera2>[FBIR])?\.mp4"
        ),
        examples={
            "Normal/Front/NO20240101-120000-000001F.MP4": "camera 1, 2024-01-01 12:00:00",
            "Event/Back/EV20240101-120000-000002B.MP4": "camera 2, 2024-01-01 12:00:00, event",
            "Parking/Back/PA20240101-120000-000003.MP4": "camera 2, 2024-01-01 12:00:00, parking",
            "NO20240101-120000.MP4": "camera 1, 2024-01-01 12:00:00",
        },
        cameras={"": 1, "f": 1, "front": 1, "b": 2, "r": 2, "back": 2, "i": 3, "interior": 3},
        event_tags={"ev": EVENT, "la": TIMELAPSE, "pa": PARKING},
    ),
    Preset(
        "tesla",
        "Tesla",
        _named(
            rf"{_DASHED_DAY}_(?P<H>\d\d)-(?P<M>\d\d)(?:-(?P<S>\d\d))?"
            r"-(?P<camera>front|back|left_repeater|right_repeater|left_pillar|right_pillar)\.mp4"
        ),
        examples={
            "SavedClips/2019-07-12_08-46-48/2019-07-12_08-36-07-front.mp4": "camera 1, 2019-07-12 08:36:07, saved",
            "SentryClips/2019-07-12_08-46-48/2019-07-12_08-36-07-back.mp4": "camera 2, 2019-07-12 08:36:07, event",
            "TeslaCam/RecentClips/2019-07-12_08-36-left_pillar.mp4": "camera 5, 2019-07-12 08:36:00",
        },
        cameras={
            "front": 1,
            "back": 2,
            "left_repeater": 3,
            "right_repeater": 4,
            "left_pillar": 5,
            "right_pillar": 6,
        },
        proxies=_proxies(r"(?:event\.json|thumb\.png)"),
    ),
    Preset(
        "dahua",
        "Dahua recorders",
        _named(
            rf"{_DASHED_DAY}/(?P<camera>\d{{1,3}})/dav/(?:\d\d/)?(?P<H>\d\d)\.(?P<M>\d\d)\.(?P<S>\d\d)"
            r"-\d\d\.\d\d\.\d\d\[(?P<event>[A-Z])\]\[\d+@\d+\]\[\d+\]\.mp4"
        ),
        examples={
            "2019-05-09/001/dav/21/21.04.49-21.05.14[M][0@0][0].mp4": "camera 1, 2019-05-09 21:04:49, motion",
            "2019-05-09/002/dav/21.04.49-21.05.14[A][0@0][0].mp4": "camera 2, 2019-05-09 21:04:49, alarm",
        },
        event_tags={"a": ALARM, "i": EVENT, "m": MOTION},
    ),
    Preset(
        "icar",
        "iCar mobile recorders",
        _named(rf"H{_DAY}-{_CLOCK}[PN]\w(?P<event>[NA])(?P<camera>\d)\w\d\.avi"),
        examples={
            "H20190808-095851P1N2P0.avi": "camera 2, 2019-08-08 09:58:51",
            "H20190808-095851P1A1P0.avi": "camera 1, 2019-08-08 09:58:51, alarm",
        },
        event_tags={"a": ALARM},
    ),
    Preset(
        "jt808",
        "JT/T 808 alarm attachments",
        _named(r"02_(?P<camera>\d{1,2})_[0-9A-F]{4,6}_\d+_[^./]+\.(?:mp4|ts|avi|mkv)"),
        examples={
            "02_65_6502_0_a1b2c3d4.mp4": "camera 65, no time, alarm",
            "02_1_6402_1_20260728141441.mp4": "camera 1, no time, alarm",
        },
        clock="none",
        event_tags={"": ALARM},
    ),
    Preset(
        "jimi",
        "Jimi JC series, events",
        _named(
            r"EVENT_\d{15}_[0-9A-F]{8}_(?P<Y>\d{4})_(?P<m>\d\d)_(?P<d>\d\d)"
            r"_(?P<H>\d\d)_(?P<M>\d\d)_(?P<S>\d\d)_(?P<camera>[FI])_\d+\.(?:mp4|ts)"
        ),
        examples={
            "EVENT_862798051583785_00000000_2026_08_18_10_46_42_I_15.mp4": "camera 2, 2026-08-18 10:46:42, event",
            "EVENT_862798051583785_00000000_2026_08_18_10_46_42_F_15.ts": "camera 1, 2026-08-18 10:46:42, event",
        },
        cameras={"f": 1, "i": 2},
        event_tags={"": EVENT},
    ),
    Preset(
        "frigate",
        "Frigate",
        _named(rf"{_DASHED_DAY}/(?P<H>\d\d)/(?P<camera>[\w-]+)/(?P<M>\d\d)\.(?P<S>\d\d)\.mp4"),
        examples={
            "2024-05-06/07/front_cam/08.09.mp4": "camera ?, 2024-05-06 07:08:09 UTC",
            "recordings/2024-05-06/07/cam2/08.09.mp4": "camera 2, 2024-05-06 07:08:09 UTC",
        },
        clock="utc",
    ),
    Preset(
        "motion",
        "Motion",
        _named(rf"\d+-{_DAY}{_CLOCK}\.(?:mkv|mp4|avi)"),
        examples={
            "01-20240506070809.mkv": "camera ?, 2024-05-06 07:08:09, event",
            "cam2/117-20240506070809.mp4": "camera 2, 2024-05-06 07:08:09, event",
        },
        event_tags={"": EVENT},
    ),
    Preset(
        "motioneye",
        "motionEye",
        _named(rf"(?P<camera>[^/]+)/{_DASHED_DAY}/(?P<H>\d\d)-(?P<M>\d\d)-(?P<S>\d\d)\.(?:mp4|mkv|avi)"),
        examples={
            "Camera1/2024-05-06/07-08-09.mp4": "camera 1, 2024-05-06 07:08:09",
            "Camera2/2024-05-06/07-08-09.mkv": "camera 2, 2024-05-06 07:08:09",
        },
    ),
    Preset(
        "hikvision",
        "Hikvision and EZVIZ cards",
        _named(r"hiv\d{5}\.mp4"),
        examples={
            "hiv00000.mp4": "",
            "datadir0/hiv00123.mp4": "",
        },
        refused=(
            "it is a block of the ring that Hikvision and EZVIZ cameras overwrite in place, not a recording, whatever "
            "its name says: let the camera or recorder export MP4 files (event clips to FTP or NAS, or a backup) and "
            "watch the folder they go to"
        ),
    ),
    Preset(
        "dav",
        "Dahua's own format",
        re.compile(r"\.dav$", re.IGNORECASE),
        examples={
            "2019-05-09/001/dav/21/21.04.49-21.05.14[M][0@0][0].dav": "",
            "export.DAV": "",
        },
        refused=(
            "it is in Dahua's own format (DAV), which only Dahua's programs read: set the recorder to store or export "
            "MP4 with H.264 instead"
        ),
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL if not preset.refused}
# One expression for all presets: a scan asks for each file.
ANY_PROXIES = _proxies("|".join(f"(?:{preset.proxies.pattern})" for preset in PRESETS.values() if preset.proxies))
UNSUPPORTED = tuple(preset for preset in _ALL if preset.refused)
