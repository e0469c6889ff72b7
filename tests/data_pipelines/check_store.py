"""A store held against what the slow reference says."""

from collections.abc import Mapping

import pytest

from data_pipelines.stores.store import Store
from sparsectr.schema import PREFIXES
from tests.data_pipelines.decoded_store import decode
from tests.data_pipelines.reference_listwise import Expected


def check_store(store: Store, expected: Expected) -> None:
    """Checks rows, vocabularies, counts and scales."""
    decoded = decode(store)
    assert decoded.vocabularies == expected.decoded.vocabularies
    assert decoded.users == expected.decoded.users
    assert decoded.requests == expected.decoded.requests
    assert store.manifest["counts"] == expected.counts
    for what in ("dropped", "incomplete"):
        assert _found(store.manifest[what]) == _found(getattr(expected, what))
    assert store.manifest["out_of_vocabulary"] == expected.out_of_vocabulary
    numbers = {
        f"{prefix}_{field.name}": field
        for prefix in PREFIXES
        for field in store.schema.numbers(prefix)
    }
    assert numbers.keys() == expected.moments.keys()
    for name, field in numbers.items():
        mean, scale, largest = expected.moments[name]
        # Of values that hardly differ a double knows the spread no better.
        rounding = 1e-12 * largest
        assert field.mean == pytest.approx(mean, rel=1e-12, abs=rounding)
        if scale == 1.0:
            assert field.scale == 1.0
        assert field.scale == pytest.approx(scale, rel=1e-12, abs=rounding)


def _found(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
