"""What a store of raw Alibaba files must hold, read plainly and slowly.

It shares no code with the packages: rows are dicts of text, and all is
counted one by one.
"""

from pathlib import Path

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

# Midnights of 2017-04-22, 2017-05-13 and 2017-05-14 in China (UTC+8).
FIRST_BEHAVIOR_TIME = 1_492_790_400
TEST_TIME = 1_494_604_800
END_TIME = 1_494_691_200

PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
AD = ("cate", "campaign_id", "customer", "brand", "price")
_RAW_NAME = {"cate": "cate_id"}
FIELDS = Fields(
    user={name: name for name in PROFILE},
    behavior={name: name for name in ("btag", "cate", "brand")},
    candidate={
        name: name
        for name in (
            "adgroup_id",
            "cate",
            "campaign_id",
            "customer",
            "brand",
            "pid",
        )
    },
    min_count=dict.fromkeys(
        ("cate", "brand", "adgroup_id", "campaign_id", "customer"), 2
    ),
    numbers=("candidate_price",),
    log_scaled=("candidate_price",),
)


def expected_store(raw_dir: Path) -> Expected:
    """Returns what a store of the four files must hold."""
    impressions, num_unknown_ads = _impressions(raw_dir)
    behaviors, dropped = _behaviors(raw_dir)
    raw = Raw(
        fields=FIELDS,
        users={
            int(row["userid"]): {name: whole(row[name]) for name in PROFILE}
            for row in read_rows(raw_dir, "user_profile.csv")
        },
        behaviors=behaviors,
        impressions=impressions,
        test_time=TEST_TIME,
        dropped=dropped,
        incomplete={
            "candidates of an advertisement without features": num_unknown_ads
        },
    )
    return build(raw)


def _impressions(raw_dir: Path) -> tuple[list[Impression], int]:
    """Returns them and how many have an advertisement without features."""
    ads: dict[int, Values] = {}
    for row in read_rows(raw_dir, "ad_feature.csv"):
        ad: Values = {
            name: whole(row[_RAW_NAME.get(name, name)])
            for name in AD
            if name != "price"
        }
        ads[int(row["adgroup_id"])] = {**ad, "price": number(row["price"])}
    impressions = []
    num_unknown = 0
    for row in read_rows(raw_dir, "raw_sample.csv"):
        ad_id = int(row["adgroup_id"])
        num_unknown += ad_id not in ads
        features = ads.get(ad_id, dict.fromkeys(AD))
        impressions.append(
            Impression(
                user_id=int(row["user"]),
                time=int(row["time_stamp"]),
                request=int(row["time_stamp"]),
                label=int(row["clk"]),
                values={"adgroup_id": ad_id, **features, "pid": row["pid"]},
            )
        )
    return impressions, num_unknown


def _behaviors(raw_dir: Path) -> tuple[list[Behavior], dict[str, int]]:
    """Returns possible behaviors, each once, and how many were left out."""
    behaviors = []
    num_impossible = num_repeated = 0
    seen = set()
    for row in read_rows(raw_dir, "behavior_log.csv"):
        behavior = Behavior(
            user_id=int(row["user"]),
            time=int(row["time_stamp"]),
            values={
                "btag": row["btag"],
                "cate": int(row["cate"]),
                "brand": whole(row["brand"]),
            },
        )
        key = (behavior.user_id, behavior.time, *behavior.values.values())
        if not FIRST_BEHAVIOR_TIME <= behavior.time < END_TIME:
            num_impossible += 1
        elif key in seen:
            num_repeated += 1
        else:
            seen.add(key)
            behaviors.append(behavior)
    return behaviors, {
        "behaviors at an impossible time": num_impossible,
        "repeated behaviors": num_repeated,
    }
