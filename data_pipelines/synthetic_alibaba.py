"""A synthetic sample in the raw schema of the Alibaba display-ad data.

    python -m data_pipelines.synthetic_alibaba --raw_dir=RAW

The real files need an account, so this makes files of the same form: the same
headers, quirks and published statistics, from a seed. Numbers that come from
it are numbers of a synthetic sample and must be called so. A file beside them,
`SYNTHETIC.txt`, says what they are; a store made from them carries it on.

The model behind it, so that everybody can judge what a result on it means:

*Interests.* A category belongs to one of 40 topics. A user has nine interests,
each a topic with four favorite categories in it: two are always alive, three
belong to an hour of the day, two to the weekend, and two come in episodes of
two to five days, each with a return after a pause of four to nine days. The
interest k of user u has at time t the weight

    a(u, k, t) = strength(u, k) * alive(k, t),

where `alive` is a bell of 1.5 hours around the hour of an hourly interest, and
high inside and nearly 0 outside of a weekend or an episode.

*Sessions.* A user's time falls into sessions, by the traffic of the hours and
weekdays in UTC+8. A session follows one interest z, drawn in proportion to
a(u, z, start). Of its behaviors 85 % are in favorite categories of z, 7 % in
those of any interest of the user, and 8 % anywhere. In a category, a user
takes the favorite brand at least 35 % of the time.

*Requests.* A request belongs to a session: it comes up to a minute before the
first behavior (25 %), so that z must be foreseen from the same hour, earlier
weekends and the last days, or after one of its behaviors (75 %), so that the
last minutes show it. It has 1 to 16 candidates: 20 % in the session's
interest, 35 % in another of the user's, and 45 % anything.

*Clicks.* The click logit of the ad c for user u in a session of interest z is

    base(pid) + 2.6 * match(c, z) + 0.2 * max_k match(c, k)
    + 0.7 * [brand of c is u's favorite in the category of c]
    + quality(c) + price_effect(c) + user_effect(u),

where match is 1 for a favorite category of the interest, 0.5 for another
category of its topic, and 0 elsewhere. Quality, price and user have standard
deviations of about 0.4, 0.3 and 0.2. `base` makes the click rates of the two
placements the published ones. No behavior is a consequence of a click, but
those right after a request show z as those right before do: a reader that lets
a later behavior through would be rewarded for its leak.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from absl import flags
from pyarrow import csv

from data_pipelines.stores.new_folder import new_folder
from data_pipelines.synthetic import (
    synthetic_catalog,
    synthetic_impressions,
    synthetic_interests,
)
from data_pipelines.synthetic.synthetic_catalog import (
    NUM_ADS,
    NUM_BRANDS,
    NUM_CATEGORIES,
    Catalog,
    FloatArray,
    IntArray,
)
from data_pipelines.synthetic.synthetic_impressions import Impressions
from data_pipelines.synthetic.synthetic_interests import DAY, LOG_END, Behaviors
from sparsectr.errors import InputError
from sparsectr.process import command

MARKER = "SYNTHETIC.txt"
"""Name of the file that tells made files from real ones."""

DEFAULT_NUM_USERS = 10_000
MIN_NUM_USERS = 10

PIDS = np.array(["430548_1007", "430539_1007"])
BTAGS = np.array(["pv", "cart", "fav", "buy"])
BTAG_SHARES = np.array([0.950, 0.0237, 0.0138, 0.0125])
DUPLICATE_RATE = 0.0706
IMPOSSIBLE_TIME_RATE = 26_278 / 723_268_134
NO_BEHAVIOR_RATE = 0.005
NO_PROFILE_RATE = 0.06
NO_PVALUE_RATE = 0.5424
NO_USER_CLASS_RATE = 0.3249

# Raw ids are drawn up to these, which are near the sizes of the real data.
MAX_USER_ID = 1_141_729
MAX_AD_ID = 846_811
MAX_CATEGORY_ID = 12_977
MAX_BRAND_ID = 461_497
MAX_CAMPAIGN_ID = 423_436
MAX_CUSTOMER_ID = 255_875


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticLogs:
    """The four raw tables, and what no raw file tells.

    Attributes:
        raw_sample: Impressions.
        ad_feature: Ads.
        user_profile: Profiles of most users.
        behavior_log: Behaviors.
        click_logit: True click logit of each row of `raw_sample`.
    """

    raw_sample: pa.Table
    ad_feature: pa.Table
    user_profile: pa.Table
    behavior_log: pa.Table
    click_logit: FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ids:
    """Raw ids of what is an index in here, in random order."""

    user: IntArray
    ad: IntArray
    category: IntArray
    brand: IntArray


def write_sample(
    raw_dir: Path, *, num_users: int = DEFAULT_NUM_USERS, seed: int = 0
) -> None:
    """Writes the four raw files of the synthetic sample, and the marker.

    Args:
        raw_dir: Folder to make. It appears when all files are whole.
        num_users: Number of users; each has about six requests.
        seed: Seed of everything; the same seed gives the same bytes.

    Raises:
        ValueError: If `num_users` is less than 10 or `seed` is negative.
        InputError: If there is something at `raw_dir` already.
        OSError: If the disk is full or not writable.
    """
    with new_folder(raw_dir) as folder:
        logs = simulate(num_users=num_users, seed=seed)
        for name in (
            "raw_sample",
            "ad_feature",
            "user_profile",
            "behavior_log",
        ):
            _write_csv(folder / f"{name}.csv", getattr(logs, name))
        (folder / MARKER).write_text(
            "These files are synthetic. They have the form of the Alibaba "
            "display-ad data and nothing in them is real. Made by: python -m "
            "data_pipelines.synthetic_alibaba "
            f"--num_users={num_users} --seed={seed}\n",
            "utf-8",
        )


def simulate(*, num_users: int, seed: int) -> SyntheticLogs:
    """Returns the tables of the sample, with the true click logits.

    Raises:
        ValueError: If `num_users` is less than 10 or `seed` is negative.
    """
    if num_users < MIN_NUM_USERS:
        raise ValueError(
            f"`num_users` must be at least {MIN_NUM_USERS}. "
            f"Received: num_users={num_users}"
        )
    if seed < 0:
        raise ValueError(f"`seed` must not be negative. Received: seed={seed}")
    rng = np.random.default_rng(seed)
    catalog = synthetic_catalog.draw_catalog(rng)
    users = synthetic_interests.draw_users(rng, catalog, num_users)
    sessions, behaviors = synthetic_interests.draw_sessions(rng, catalog, users)
    impressions = synthetic_impressions.draw_impressions(
        rng, catalog, users, sessions, behaviors
    )
    ids = _draw_ids(rng, num_users)
    order = rng.permutation(len(impressions.user))
    return SyntheticLogs(
        raw_sample=_raw_sample(impressions, ids).take(order),
        ad_feature=_draw_ad_feature(rng, catalog, ids),
        user_profile=_draw_user_profile(rng, ids),
        behavior_log=_draw_behavior_log(rng, behaviors, ids),
        click_logit=impressions.click_logit[order],
    )


def _draw_ids(rng: np.random.Generator, num_users: int) -> _Ids:
    def draw(size: int, highest: int) -> IntArray:
        return 1 + rng.choice(max(size, highest), size, replace=False)

    return _Ids(
        user=draw(num_users, MAX_USER_ID),
        ad=draw(NUM_ADS, MAX_AD_ID),
        category=draw(NUM_CATEGORIES, MAX_CATEGORY_ID),
        brand=draw(NUM_BRANDS, MAX_BRAND_ID),
    )


def _raw_sample(impressions: Impressions, ids: _Ids) -> pa.Table:
    return pa.table(
        {
            "user": ids.user[impressions.user],
            "time_stamp": impressions.time,
            "adgroup_id": ids.ad[impressions.ad],
            "pid": PIDS[impressions.pid],
            "nonclk": 1 - impressions.click,
            "clk": impressions.click,
        }
    )


def _draw_ad_feature(
    rng: np.random.Generator, catalog: Catalog, ids: _Ids
) -> pa.Table:
    num_campaigns = NUM_ADS // 2
    num_customers = int(0.3 * NUM_ADS)
    campaign_id = 1 + rng.choice(MAX_CAMPAIGN_ID, num_campaigns, replace=False)
    customer_id = 1 + rng.choice(MAX_CUSTOMER_ID, num_customers, replace=False)
    # A campaign belongs to one customer.
    customer_of_campaign = rng.integers(0, num_customers, num_campaigns)
    campaign = rng.integers(0, num_campaigns, NUM_ADS)
    brand = ids.brand[catalog.ad_brand].astype(str)
    table = pa.table(
        {
            "adgroup_id": ids.ad,
            "cate_id": ids.category[catalog.ad_category],
            "campaign_id": campaign_id[campaign],
            "customer": customer_id[customer_of_campaign[campaign]],
            "brand": np.where(catalog.ad_brand < 0, "NULL", brand),
            # Arrow would write 170.0 as 170.
            "price": catalog.ad_price.astype(str),
        }
    )
    return table.take(rng.permutation(NUM_ADS))


def _draw_user_profile(rng: np.random.Generator, ids: _Ids) -> pa.Table:
    user = rng.permutation(ids.user)[round(NO_PROFILE_RATE * len(ids.user)) :]
    size = len(user)

    def draw(*shares: float) -> IntArray:
        return rng.choice(len(shares), size, p=shares)

    gender = 1 + draw(0.3556, 0.6444)
    age_level = draw(0.001, 0.05, 0.23, 0.30, 0.24, 0.15, 0.029)
    # Groups 1 to 6 are women by age, 7 to 12 men; 0 has no age.
    group = np.where(age_level == 0, 0, age_level + 6 * (gender == 1))
    segment = np.where(draw(0.45, 0.55) == 0, 0, rng.integers(1, 97, size))
    pvalue_level = 1 + draw(0.28, 0.62, 0.10)
    user_class = 1 + draw(0.18, 0.47, 0.24, 0.11)
    no_pvalue = rng.random(size) < NO_PVALUE_RATE
    no_user_class = rng.random(size) < NO_USER_CLASS_RATE
    return pa.table(
        {
            "userid": user,
            "cms_segid": segment,
            "cms_group_id": group,
            "final_gender_code": gender,
            "age_level": age_level,
            "pvalue_level": pa.array(pvalue_level, mask=no_pvalue),
            "shopping_level": 1 + draw(0.06, 0.11, 0.83),
            "occupation": draw(0.943, 0.057),
            # The real header has this blank at its end.
            "new_user_class_level ": pa.array(user_class, mask=no_user_class),
        }
    )


def _draw_behavior_log(
    rng: np.random.Generator, behaviors: Behaviors, ids: _Ids
) -> pa.Table:
    """Returns the log with its quirks: repeated rows, impossible times."""
    has_log = np.ones(len(ids.user), dtype=bool)
    num_without = round(NO_BEHAVIOR_RATE * len(ids.user))
    has_log[rng.permutation(len(ids.user))[:num_without]] = False
    shown = np.flatnonzero(has_log[behaviors.user] & (behaviors.time < LOG_END))
    size = len(shown)
    btag = rng.choice(len(BTAGS), size, p=BTAG_SHARES)
    time = behaviors.time[shown]
    table = pa.table(
        {
            "user": ids.user[behaviors.user[shown]],
            "time_stamp": time,
            "btag": BTAGS[btag],
            "cate": ids.category[behaviors.category[shown]],
            "brand": ids.brand[behaviors.brand[shown]],
        }
    )
    # Impossible times are rows of their own: one in two is before 1970, the
    # others are far in the future. At least two, so that a reader meets both.
    num_impossible = max(2, round(IMPOSSIBLE_TIME_RATE * size))
    impossible = rng.integers(0, size, num_impossible)
    wrong_time = rng.integers(1, 2_000_000_000, num_impossible)
    wrong_time[0::2] *= -1
    wrong_time[1::2] += LOG_END + 30 * DAY
    repeated = rng.choice(
        size, round(size * DUPLICATE_RATE / (1 - DUPLICATE_RATE)), replace=False
    )
    rows = np.concatenate([np.arange(size), repeated, impossible])
    time = np.concatenate([time, time[repeated], wrong_time])
    order = rng.permutation(len(rows))
    table = table.take(rows[order])
    return table.set_column(1, "time_stamp", pa.array(time[order]))


def _write_csv(path: Path, table: pa.Table) -> None:
    with path.open("wb") as stream:
        # Arrow would put the names in quotation marks.
        stream.write((",".join(table.column_names) + "\n").encode())
        csv.write_csv(
            table,
            stream,
            csv.WriteOptions(include_header=False, quoting_style="none"),
        )


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("raw_dir", None, "Folder to make.", required=True)
    flags.DEFINE_integer(
        "num_users",
        DEFAULT_NUM_USERS,
        "Number of users; each has about six requests.",
    )
    flags.DEFINE_integer("seed", 0, "The same seed gives the same bytes.")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    for name, least in (("num_users", MIN_NUM_USERS), ("seed", 0)):
        value = getattr(values, name)
        if value < least:
            raise InputError(
                f"--{name} must be at least {least}. Received: {value}"
            )
    raw_dir = Path(values.raw_dir)
    write_sample(raw_dir, num_users=values.num_users, seed=values.seed)
    print((raw_dir / MARKER).read_text("utf-8"), end="")


if __name__ == "__main__":
    define_flags()
    command.run(main)
