"""The users of the synthetic sample: interests, sessions and behaviors.

What the model behind them is says `data_pipelines.synthetic_alibaba`.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from data_pipelines.synthetic.synthetic_catalog import (
    CATEGORIES_PER_TOPIC,
    NUM_CATEGORIES,
    NUM_TOPICS,
    Catalog,
    FloatArray,
    IntArray,
    draw_member,
)

DAY = 86_400
UTC_OFFSET = 8 * 3600
LOG_START = 1_492_790_400  # 2017-04-22 00:00 UTC+8, a Saturday.
LOG_END = 1_494_691_200  # 2017-05-14 00:00 UTC+8.
NUM_DAYS = (LOG_END - LOG_START) // DAY

NUM_STEADY, NUM_HOURLY, NUM_WEEKEND, NUM_EPISODIC = 2, 3, 2, 2
NUM_INTERESTS = NUM_STEADY + NUM_HOURLY + NUM_WEEKEND + NUM_EPISODIC
NUM_FAVORITES = 4
FAVORITE_SHARES = np.array([0.45, 0.3, 0.15, 0.1])

# Published: 592 behaviors a user; by impressions, the medians of the
# quintiles are 171, 414, 698, 1130 and 2163. This log-normal is near both,
# since busy users also see more ads.
MEDIAN_BEHAVIORS = 370.0
SIGMA_BEHAVIORS = 0.95
MAX_BEHAVIORS = 6000.0
MEDIAN_SESSION = 15.0

# Relative traffic of the hours 0 to 23 in UTC+8, with its peak at 21.
# fmt: off
HOUR_TRAFFIC = np.array([
    2.6, 1.5, 0.8, 0.5, 0.4, 0.5, 1.2, 2.2, 3.4, 4.4, 5.0, 4.9,
    5.0, 5.1, 4.9, 5.0, 4.9, 4.6, 4.8, 5.8, 7.2, 7.9, 7.0, 4.8,
])
# fmt: on
# From Monday to Sunday.
WEEKDAY_TRAFFIC = np.array([1.0, 0.98, 0.97, 0.97, 0.95, 1.1, 1.15])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Users:
    """Users and what they like; U users, K interests, F favorites each.

    Attributes:
        favorites: Category [U, K, F], most liked first; an interest is one
            topic, so its favorites all have that topic.
        favorite_brand: Brand [U, NUM_CATEGORIES].
        strength: Strength of an interest while it is active [U, K].
        hour: Hour of day of an hourly interest [U, NUM_HOURLY].
        episode_start: Days since the log's start [U, NUM_EPISODIC, 2].
        episode_end: Likewise, exclusive.
        num_behaviors: About how many behaviors the user has [U].
    """

    favorites: IntArray
    favorite_brand: IntArray
    strength: FloatArray
    hour: FloatArray
    episode_start: FloatArray
    episode_end: FloatArray
    num_behaviors: FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sessions:
    """Sessions, sorted by user and start.

    Attributes:
        user: User of each session.
        interest: The interest that it follows.
        first: Row of its first behavior; its last is first + length - 1.
        length: Number of its behaviors.
    """

    user: IntArray
    interest: IntArray
    first: IntArray
    length: IntArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviors:
    """Behaviors in the order of their sessions."""

    user: IntArray
    time: IntArray
    category: IntArray
    brand: IntArray


def draw_users(
    rng: np.random.Generator, catalog: Catalog, num_users: int
) -> Users:
    """Returns users with their interests."""
    shape = (num_users, NUM_INTERESTS)
    topic_appeal = -0.8 * np.log(np.arange(1, NUM_TOPICS + 1))
    topic = _draw_distinct(rng, topic_appeal, (num_users,), NUM_INTERESTS)
    # Category c has the topic c mod NUM_TOPICS, and the k-th of a topic is
    # about as popular as 1 / k.
    appeal = -np.log(np.arange(1, CATEGORIES_PER_TOPIC + 1))
    place = _draw_distinct(rng, appeal, shape, NUM_FAVORITES)
    categories = np.broadcast_to(
        np.arange(NUM_CATEGORIES), (num_users, NUM_CATEGORIES)
    )
    episodes = (num_users, NUM_EPISODIC)
    length = rng.uniform(2.0, 5.0, (*episodes, 2))
    first = rng.uniform(-2.0, 10.0, episodes)
    pause = rng.uniform(4.0, 9.0, episodes)
    start = np.stack([first, first + length[..., 0] + pause], axis=-1)
    return Users(
        favorites=topic[:, :, None] + NUM_TOPICS * place,
        favorite_brand=draw_member(rng, catalog.brand_offset, categories),
        strength=rng.lognormal(0.0, 0.4, shape),
        hour=_draw_hour(rng, (num_users, NUM_HOURLY)),
        episode_start=start,
        episode_end=start + length,
        num_behaviors=np.minimum(
            rng.lognormal(np.log(MEDIAN_BEHAVIORS), SIGMA_BEHAVIORS, num_users),
            MAX_BEHAVIORS,
        ),
    )


def interest_weights(
    users: Users, user: IntArray, time: IntArray
) -> FloatArray:
    """Returns how active each interest is: [N, K] for N (user, time) pairs."""
    local = time + UTC_OFFSET
    hour = (local % DAY / 3600.0)[:, None]
    distance = np.abs(hour - users.hour[user])
    distance = np.minimum(distance, 24.0 - distance)
    hourly = 0.03 + 12.0 * np.exp(-0.5 * (distance / 1.5) ** 2)
    weekend = np.where(is_weekend(time), 10.0, 0.05)[:, None]
    day = ((time - LOG_START) / DAY)[:, None, None]
    in_episode = (users.episode_start[user] <= day) & (
        day < users.episode_end[user]
    )
    episodic = np.where(in_episode.any(axis=-1), 8.0, 0.03)
    weights = np.concatenate(
        [
            np.full((len(user), NUM_STEADY), 0.5),
            hourly,
            np.repeat(weekend, NUM_WEEKEND, axis=1),
            episodic,
        ],
        axis=1,
    )
    return weights * users.strength[user]


def is_weekend(time: IntArray) -> NDArray[np.bool_]:
    """Returns whether it is Saturday or Sunday in UTC+8."""
    # Day 0 of Unix time was a Thursday: 2 and 3 days later is the weekend.
    return np.isin((time + UTC_OFFSET) // DAY % 7, (2, 3))


def draw_sessions(
    rng: np.random.Generator, catalog: Catalog, users: Users
) -> tuple[Sessions, Behaviors]:
    """Returns the sessions of all users and the behaviors in them."""
    activity = users.num_behaviors / MEDIAN_BEHAVIORS
    mean_length = np.clip(MEDIAN_SESSION * activity**0.35, 3.0, 40.0)
    count = np.maximum(1, np.round(users.num_behaviors / mean_length))
    user = np.repeat(np.arange(len(activity)), count.astype(np.int64))
    length = rng.geometric(1.0 / mean_length[user])
    start = _draw_start(rng, len(user))
    start = start[np.lexsort((start, user))]

    first = np.cumsum(length) - length
    session = np.repeat(np.arange(len(user)), length)
    gap = np.minimum(rng.lognormal(np.log(20.0), 1.0, len(session)), 600.0)
    # Rounding down leaves some behaviors in the same second, as in reality.
    elapsed = np.cumsum(gap.astype(np.int64))
    elapsed -= elapsed[first][session]
    duration = elapsed[first + length - 1]
    start = _separate(user, start, duration + 1800)
    time = start[session] + elapsed

    interest = _choose(rng, interest_weights(users, user, start))
    category = _draw_category(rng, catalog, users, user, interest, session)
    brand = draw_member(rng, catalog.brand_offset, category)
    loyal = rng.random(len(session)) < 0.35
    brand[loyal] = users.favorite_brand[user[session], category][loyal]
    return (
        Sessions(user=user, interest=interest, first=first, length=length),
        Behaviors(
            user=user[session], time=time, category=category, brand=brand
        ),
    )


def draw_favorite(
    rng: np.random.Generator, users: Users, user: IntArray, interest: IntArray
) -> IntArray:
    """Returns a favorite category of each (user, interest)."""
    place = rng.choice(NUM_FAVORITES, len(user), p=FAVORITE_SHARES)
    return users.favorites[user, interest, place]


def _draw_category(
    rng: np.random.Generator,
    catalog: Catalog,
    users: Users,
    session_user: IntArray,
    session_interest: IntArray,
    session: IntArray,
) -> IntArray:
    """Returns 85 % the session's interest, 7 % any interest, 8 % anything."""
    size = len(session)
    kind = rng.random(size)
    interest = np.where(
        kind < 0.85,
        session_interest[session],
        rng.integers(0, NUM_INTERESTS, size),
    )
    favorite = draw_favorite(rng, users, session_user[session], interest)
    anything = rng.choice(NUM_CATEGORIES, size, p=catalog.category_popularity)
    return np.where(kind < 0.92, favorite, anything)


def _draw_distinct(
    rng: np.random.Generator,
    appeal: FloatArray,
    shape: tuple[int, ...],
    count: int,
) -> IntArray:
    """Returns `count` different indices in each row, by the Gumbel trick."""
    noisy = appeal + rng.gumbel(size=(*shape, len(appeal)))
    order: IntArray = np.argsort(-noisy, axis=-1)
    return order[..., :count]


def _choose(rng: np.random.Generator, weights: FloatArray) -> IntArray:
    """Returns one column of each row, in proportion to its weight."""
    cumulative = np.cumsum(weights, axis=1)
    point = rng.random((len(weights), 1)) * cumulative[:, -1:]
    return np.argmax(cumulative > point, axis=1)


def _draw_hour(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    hour = rng.choice(24, shape, p=HOUR_TRAFFIC / HOUR_TRAFFIC.sum())
    return hour + rng.random(shape)


def _draw_start(rng: np.random.Generator, size: int) -> IntArray:
    """Returns starts of sessions, by the traffic of day and hour."""
    weekday = (np.arange(NUM_DAYS) + 5) % 7
    traffic = WEEKDAY_TRAFFIC[weekday]
    day = rng.choice(NUM_DAYS, size, p=traffic / traffic.sum())
    second = (3600 * _draw_hour(rng, (size,))).astype(np.int64)
    return LOG_START + DAY * day + second


def _separate(user: IntArray, start: IntArray, busy: IntArray) -> IntArray:
    """Moves starts back so that no session begins while one is `busy`."""
    waited = np.cumsum(busy) - busy
    # The running maximum must not reach from one user into the next.
    block = user * (1 << 40)
    return np.maximum.accumulate(start - waited + block) + waited - block
