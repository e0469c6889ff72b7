"""The requests of the synthetic sample, their candidates and their clicks.

What the model behind them is says `data_pipelines.synthetic_alibaba`.
"""

import dataclasses

import numpy as np

from data_pipelines.synthetic.synthetic_catalog import (
    NUM_CATEGORIES,
    NUM_TOPICS,
    Catalog,
    FloatArray,
    IntArray,
    draw_member,
)
from data_pipelines.synthetic.synthetic_interests import (
    NUM_INTERESTS,
    Behaviors,
    Sessions,
    Users,
    draw_favorite,
)

SAMPLE_START = 1_494_000_000  # 2017-05-06 00:00 UTC+8.
SAMPLE_END = 1_494_691_200  # 2017-05-14 00:00 UTC+8.

PID_SHARES = np.array([0.6203, 0.3797])
PID_CLICK_RATES = (0.0501, 0.0536)

REQUESTS_PER_SESSION = 0.56
OPENING_RATE = 0.25
MAX_CANDIDATES = 16
ACTIVE_RATE, OWN_RATE = 0.20, 0.35

ACTIVE_WEIGHT, LONG_TERM_WEIGHT, BRAND_WEIGHT = 2.6, 0.2, 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Impressions:
    """One row for each candidate shown, by index from 0.

    Attributes:
        user: User.
        time: Unix seconds; the candidates of one request share it.
        ad: Advertisement.
        pid: Placement, 0 or 1.
        click_logit: True logit of the click probability.
        click: 1 for a click, else 0.
    """

    user: IntArray
    time: IntArray
    ad: IntArray
    pid: IntArray
    click_logit: FloatArray
    click: IntArray


def draw_impressions(
    rng: np.random.Generator,
    catalog: Catalog,
    users: Users,
    sessions: Sessions,
    behaviors: Behaviors,
) -> Impressions:
    """Returns the impressions, sorted by user and time."""
    request_session, request_time = _draw_requests(rng, sessions, behaviors)
    count = rng.integers(1, MAX_CANDIDATES + 1, len(request_session))
    request = np.repeat(np.arange(len(request_session)), count)
    session = request_session[request]
    user, interest = sessions.user[session], sessions.interest[session]
    ad = _draw_ad(rng, catalog, users, user, interest)
    # A request shows an ad once.
    _, kept = np.unique(
        request * len(catalog.ad_category) + ad, return_index=True
    )
    request, user, interest, ad = (
        column[kept] for column in (request, user, interest, ad)
    )
    request_pid = rng.choice(len(PID_SHARES), len(count), p=PID_SHARES)
    pid = request_pid[request]
    logit = _preference(catalog, users, user, interest, ad)
    logit += rng.normal(0.0, 0.2, len(users.strength))[user]
    for index, rate in enumerate(PID_CLICK_RATES):
        logit[pid == index] += _base_logit(logit[pid == index], rate)
    click = rng.random(len(logit)) < _sigmoid(logit)
    return Impressions(
        user=user,
        time=request_time[request],
        ad=ad,
        pid=pid,
        click_logit=logit,
        click=click.astype(np.int64),
    )


def _draw_requests(
    rng: np.random.Generator, sessions: Sessions, behaviors: Behaviors
) -> tuple[IntArray, IntArray]:
    """Returns the session and the time of each request."""
    size = len(sessions.user)
    place = (sessions.length * rng.random(size)).astype(np.int64)
    is_opening = rng.random(size) < OPENING_RATE
    time = np.where(
        is_opening,
        behaviors.time[sessions.first] - rng.integers(0, 60, size),
        behaviors.time[sessions.first + place] + rng.integers(1, 60, size),
    )
    chosen = (
        (rng.random(size) < REQUESTS_PER_SESSION)
        & (time >= SAMPLE_START)
        & (time < SAMPLE_END)
    )
    return np.flatnonzero(chosen), time[chosen]


def _draw_ad(
    rng: np.random.Generator,
    catalog: Catalog,
    users: Users,
    user: IntArray,
    interest: IntArray,
) -> IntArray:
    """Returns ads as a server with some targeting would show them."""
    size = len(user)
    kind = rng.random(size)
    # A step of 1 to K - 1 leads to any other interest.
    step = rng.integers(1, NUM_INTERESTS, size)
    other = (interest + step) % NUM_INTERESTS
    shown = np.where(kind < ACTIVE_RATE, interest, other)
    category = np.where(
        kind < ACTIVE_RATE + OWN_RATE,
        draw_favorite(rng, users, user, shown),
        rng.choice(NUM_CATEGORIES, size, p=catalog.category_popularity),
    )
    return draw_member(rng, catalog.ad_offset, category)


def _preference(
    catalog: Catalog,
    users: Users,
    user: IntArray,
    interest: IntArray,
    ad: IntArray,
) -> FloatArray:
    """Returns the click logit without the base and the user's effect."""
    category = catalog.ad_category[ad]
    favorites = users.favorites[user]  # [N, K, F]
    is_favorite = (favorites == category[:, None, None]).any(axis=-1)
    same_topic = (
        favorites[..., 0] % NUM_TOPICS == (category % NUM_TOPICS)[:, None]
    )
    match = np.where(is_favorite, 1.0, 0.5 * same_topic)  # [N, K]
    active_match = np.take_along_axis(match, interest[:, None], axis=1)[:, 0]
    likes_brand = catalog.ad_brand[ad] == users.favorite_brand[user, category]
    return (
        ACTIVE_WEIGHT * active_match
        + LONG_TERM_WEIGHT * match.max(axis=1)
        + BRAND_WEIGHT * likes_brand
        + catalog.ad_quality[ad]
        + catalog.ad_price_effect[ad]
    )


def _base_logit(logit: FloatArray, rate: float) -> float:
    """Returns what to add to `logit` so that the mean click rate is `rate`."""
    if len(logit) == 0:
        return 0.0
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if _sigmoid(logit + middle).mean() < rate:
            low = middle
        else:
            high = middle
    return low


def _sigmoid(logit: FloatArray) -> FloatArray:
    probability: FloatArray = 1.0 / (1.0 + np.exp(-logit))
    return probability
