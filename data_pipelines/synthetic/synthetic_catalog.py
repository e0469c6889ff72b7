"""The catalog of the synthetic sample: categories, brands and ads.

Sizes are scaled down from the real data (6,769 categories, 99,815 brands,
846,811 ads) so that some 25,000 requests can teach a model about them.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

NUM_TOPICS = 40
CATEGORIES_PER_TOPIC = 10
NUM_CATEGORIES = NUM_TOPICS * CATEGORIES_PER_TOPIC
NUM_BRANDS = 3000
NUM_ADS = 5000
MISSING_BRAND_RATE = 0.2909
CHEAPEST, DEAREST = 0.01, 99_999_999.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalog:
    """What can be browsed and advertised, by index from 0.

    Category c belongs to topic c mod NUM_TOPICS. Categories are in the order
    of their popularity; brands and ads are sorted by category.

    Attributes:
        category_popularity: Probability of each category.
        brand_offset: Brands of category c are offset[c] to offset[c + 1].
        ad_offset: Ads of category c are offset[c] to offset[c + 1].
        ad_category: Category of each ad.
        ad_brand: Brand of each ad, -1 where it has none.
        ad_price: Price in yuan.
        ad_quality: What the ad itself adds to the click logit.
        ad_price_effect: What its price adds to the click logit.
    """

    category_popularity: FloatArray
    brand_offset: IntArray
    ad_offset: IntArray
    ad_category: IntArray
    ad_brand: IntArray
    ad_price: FloatArray
    ad_quality: FloatArray
    ad_price_effect: FloatArray


def draw_catalog(rng: np.random.Generator) -> Catalog:
    """Returns a catalog whose popularities have a long tail."""
    popularity = np.arange(1, NUM_CATEGORIES + 1, dtype=np.float64) ** -0.8
    popularity = popularity / popularity.sum()
    brand_offset = _draw_offsets(rng, NUM_BRANDS, popularity)
    ad_offset = _draw_offsets(rng, NUM_ADS, popularity)
    ad_category = np.repeat(np.arange(NUM_CATEGORIES), np.diff(ad_offset))
    ad_brand = draw_member(rng, brand_offset, ad_category)
    ad_brand[rng.random(NUM_ADS) < MISSING_BRAND_RATE] = -1
    category_level = rng.normal(4.5, 0.9, NUM_CATEGORIES)
    # Student's t gives the heavy tail of the real prices.
    relative_price = rng.standard_t(3, NUM_ADS)
    price = np.exp(category_level[ad_category] + 0.5 * relative_price)
    price = np.clip(np.round(price, 2), CHEAPEST, DEAREST)
    price[rng.choice(NUM_ADS, 2, replace=False)] = CHEAPEST, DEAREST
    return Catalog(
        category_popularity=popularity,
        brand_offset=brand_offset,
        ad_offset=ad_offset,
        ad_category=ad_category,
        ad_brand=ad_brand,
        ad_price=price,
        ad_quality=rng.normal(0.0, 0.4, NUM_ADS),
        ad_price_effect=-0.2 * np.clip(relative_price, -3.0, 3.0),
    )


def draw_member(
    rng: np.random.Generator, offset: IntArray, category: IntArray
) -> IntArray:
    """Returns one brand (or ad) for each category, the first ones often.

    The square of a uniform number makes the k-th member of n about as
    frequent as 1 / sqrt(k n).
    """
    start = offset[category]
    count = offset[category + 1] - start
    place = (count * rng.random(category.shape) ** 2).astype(np.int64)
    return start + place


def _draw_offsets(
    rng: np.random.Generator, size: int, popularity: FloatArray
) -> IntArray:
    """Returns offsets of `size` members, at least one for each category."""
    extra = rng.multinomial(size - NUM_CATEGORIES, popularity)
    return np.concatenate([[0], np.cumsum(1 + extra)]).astype(np.int64)
