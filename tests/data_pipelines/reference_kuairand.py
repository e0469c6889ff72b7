"""What a store of raw KuaiRand files must hold, read plainly and slowly."""

from pathlib import Path

import numpy as np

from tests.data_pipelines.decoded_store import Values
from tests.data_pipelines.reference_files import number, read_rows, whole
from tests.data_pipelines.reference_listwise import (
    Behavior,
    Expected,
    Fields,
    Impression,
    Raw,
    build,
)

PROFILE = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
VIDEO = (
    "author_id",
    "music_id",
    "tag",
    "video_type",
    "upload_type",
    "video_duration",
)
_BEHAVIOR = ("video_id", "author_id", "tag", "tags", "tab", "feedback")
_CANDIDATE = ("video_id", *VIDEO[:-1], "tags", "tab")
_NUMBERS = (
    "behavior_video_duration",
    "behavior_play_time",
    "candidate_video_duration",
)
FIELDS = Fields(
    user={name: name for name in ("user_id", *PROFILE)},
    behavior={name: name for name in _BEHAVIOR},
    candidate={name: name for name in _CANDIDATE},
    min_count=dict.fromkeys(
        ("user_id", "video_id", "author_id", "music_id", "tag"), 2
    ),
    sets={"tags": 4},
    numbers=_NUMBERS,
    log_scaled=_NUMBERS,
)
_DAY = 86_400
_OFFSET = 8 * 3600


def expected_store(raw_dir: Path) -> Expected:
    """Returns what a store of these files must hold."""
    videos = {
        int(row["video_id"]): _video(row)
        for row in read_rows(
            raw_dir, "video_features_basic_pure.csv", quoted=True
        )
    }
    behaviors = []
    impressions = []
    seen = set()
    num_repeated = num_unknown = 0
    names = sorted(path.name for path in raw_dir.glob("log_standard_*"))
    for name in names:
        stem = name[: name.index(".csv") + 4]
        for row in read_rows(raw_dir, stem, quoted=True):
            user_id, video_id = int(row["user_id"]), int(row["video_id"])
            milliseconds = int(row["time_ms"])
            if (user_id, video_id, milliseconds) in seen:
                num_repeated += 1
                continue
            seen.add((user_id, video_id, milliseconds))
            num_unknown += video_id not in videos
            values: Values = {
                "video_id": video_id,
                **videos.get(video_id, {**dict.fromkeys(VIDEO), "tags": []}),
                "play_time": _seconds(row["play_time_ms"]),
                "tab": int(row["tab"]),
                "feedback": int(row["is_click"])
                + 2 * int(row["long_view"])
                + 4 * int(row["is_like"]),
            }
            time = milliseconds // 1000
            behaviors.append(
                Behavior(
                    user_id=user_id,
                    time=time,
                    moment=milliseconds,
                    values={
                        name: values[name]
                        for name in (*_BEHAVIOR, "video_duration", "play_time")
                    },
                )
            )
            impressions.append(
                Impression(
                    user_id=user_id,
                    time=time,
                    request=milliseconds,
                    label=int(row["is_click"]),
                    values={
                        name: values[name]
                        for name in (*_CANDIDATE, "video_duration")
                    },
                )
            )
    last = max(impression.time for impression in impressions)
    return build(
        Raw(
            fields=FIELDS,
            users=_users(raw_dir),
            behaviors=behaviors,
            impressions=impressions,
            test_time=(last + _OFFSET) // _DAY * _DAY - _OFFSET,
            dropped={"repeated exposures": num_repeated},
            behaviors_are_impressions=True,
            incomplete={"exposures of a video without features": num_unknown},
        )
    )


def _video(row: dict[str, str]) -> Values:
    return {
        "author_id": whole(row["author_id"]),
        "music_id": whole(row["music_id"]),
        "tag": row["tag"] or None,
        "tags": [int(tag) for tag in row["tag"].split(",") if tag],
        "video_type": row["video_type"] or None,
        "upload_type": row["upload_type"] or None,
        "video_duration": number(row["video_duration"]),
    }


def _seconds(text: str) -> float | None:
    return float(np.float32(int(text) / 1000)) if text else None


def _users(raw_dir: Path) -> dict[int | str, Values]:
    return {
        int(row["user_id"]): {name: row[name] or None for name in PROFILE}
        for row in read_rows(raw_dir, "user_features_pure.csv", quoted=True)
    }
