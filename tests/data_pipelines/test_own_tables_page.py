"""`docs/own_tables.md`, followed to the letter."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data_pipelines.prepare import Options, prepare
from data_pipelines.stores.store import Store
from tests.commands import ForkedCommands
from tests.data_pipelines.decoded_store import Decoded, Request, decode

WINDOWS = ("6h", "3d", "all")

# The page.

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "own_tables.md"


def saved_files() -> dict[str, str]:
    """Returns the files that the page's example tells to save."""
    blocks = re.findall(
        r"[Ss]ave this as `([^`]+)`[^`]*\n\n```\w+\n(.*?)```",
        PAGE.read_text("utf-8"),
        re.DOTALL,
    )
    assert [name for name, _ in blocks] == [
        "make_shop.py",
        "shop.toml",
        "ask.py",
    ]
    return dict(blocks)


def commands() -> list[str]:
    """Returns the commands that the page's example tells to run."""
    page = PAGE.read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run(command: str, folder: pathlib.Path) -> str:
    program, *arguments = command.split()
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder in which the page was followed up to the training."""
    folder = tmp_path_factory.mktemp("shop")
    for name, text in saved_files().items():
        (folder / name).write_text(text)
    for command in commands():
        if "sparsectr.train" in command:
            break
        run(command, folder)
    return folder


def test_the_page_prepares_what_it_says(shop: pathlib.Path) -> None:
    decoded = decode(Store(shop / "data" / "shop"))
    events = pd.read_parquet(shop / "shop" / "events")
    events["time"] = (events["at"] - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(
        seconds=1
    )
    products = pd.read_parquet(shop / "shop" / "products.parquet")
    products = products.set_index("sku")
    shown = pd.read_parquet(shop / "shop" / "impressions.parquet")
    views = shown.groupby(["customer", "shown_at"], sort=True)
    assert len(decoded.requests) == len(views)
    of_customer = dict(list(events.groupby("customer")))
    for (customer, at), request in list(
        zip(views.groups, _by_time(decoded), strict=True)
    )[::50]:
        rows = views.get_group((customer, at))
        assert (request.user_id, request.time) == (customer, at // 1000)
        assert request.split == ("train" if at < 1_772_838_000_000 else "test")
        assert request.profile["device"] == rows["device"].iloc[0]
        past = of_customer[customer]
        past = past[past["time"] < request.time].sort_values("time")
        assert [(t, v["action"]) for t, v in request.history] == list(
            zip(past["time"], past["action"], strict=True)
        )
        categories = products["category"].reindex(past["sku"])
        assert [v["category"] for _, v in request.history] == list(categories)
        assert [label for _, label in request.candidates] == list(
            rows["clicked"]
        )
        prices = products["price"].reindex(rows["sku"])
        assert [v["price"] for v, _ in request.candidates] == list(
            prices.astype(np.float32)
        )


def _by_time(decoded: Decoded) -> list[Request]:
    return sorted(decoded.requests, key=lambda r: (r.user_id, r.time))


def test_every_command_of_the_page_runs(tmp_path: pathlib.Path) -> None:
    """With less data, fewer steps and the smallest model, in quick forks."""
    files = saved_files()
    sizes = "customers, products, days, requests = 400, 300, 21, 4000"
    assert sizes in files["make_shop.py"]
    small = sizes.replace("400, 300, 21, 4000", "20, 60, 21, 200")
    files["make_shop.py"] = files["make_shop.py"].replace(sizes, small)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    forks = ForkedCommands(tmp_path)
    for command in commands():
        python, *arguments = command.split()
        assert python == "python"
        if arguments[0] == "-m":
            del arguments[0]
        if arguments[0] == "sparsectr.train":
            arguments += ["--model.name=mean_pooling", "--max_steps=2"]
            arguments += ["--noexport", "--nojit_compile"]
        done = forks(arguments[0].removesuffix(".py"), *arguments[1:])
        assert done.returncode == 0, (command, done.stderr)
    forks.close()
    assert "ask" in command
    assert len(_probabilities(done.stdout)) == 2


def _probabilities(printed: str) -> list[float]:
    """Returns what `ask.py` printed."""
    answer = re.search(r"probabilities: \[\[([\d. ]+)\]\]", printed)
    assert answer, printed
    return [float(number) for number in answer[1].split()]


def test_the_statistics_of_the_page(
    shop: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    page = PAGE.read_text("utf-8")
    (sections,) = re.findall(r"```toml\n(\[statistics.*?)```", page, re.DOTALL)
    schema_file = tmp_path / "shop.toml"
    schema_file.write_text((shop / "shop.toml").read_text() + sections)
    store = prepare(
        "parquet",
        shop / "shop",
        tmp_path / "data" / "shop",
        options=Options(schema_file=schema_file),
    )
    (command,) = re.findall(
        r"    (python -m data_pipelines.statistics.*)", page
    )
    run(command, tmp_path)
    asked = int(pd.Timestamp("2026-03-08T12:00+01:00").timestamp())
    shown = pd.read_parquet(shop / "shop" / "impressions.parquet")
    shown = shown[shown["shown_at"] < 1000 * asked]
    base = shown["clicked"].mean()
    recent = shown[shown["shown_at"] >= 1000 * (asked - 3 * 86400)]
    clicks = recent.groupby("sku")["clicked"].agg(["sum", "count"])
    found = pd.read_parquet(tmp_path / "served" / "product.parquet")
    found = found.set_index("candidate_product").loc[clicks.index]
    np.testing.assert_allclose(
        found["candidate_product_rate_3d"],
        (clicks["sum"] + 20 * base) / (clicks["count"] + 20),
        rtol=1e-6,
    )
    names = [f.name for f in store.schema.candidate_dense_fields]
    assert names == [
        "price",
        *(f"product_{c}_{w}" for c in ("impressions", "rate") for w in WINDOWS),
        "product_age",
        "taste_impressions_all",
        "taste_rate_all",
    ]


@pytest.mark.slow
def test_the_page_trains_and_exports(shop: pathlib.Path) -> None:
    printed = {command: run(command, shop) for command in _after(shop)}
    train, *_, ask = printed.values()
    (auc,) = re.findall(r"AUC: ([\d.]+) - GAUC", train)
    # Categories that a customer favours are clicked ten times as often.
    assert float(auc) > 0.7
    first, second = _probabilities(ask)
    # The first is of the category that the customer has just looked at.
    assert first > 2 * second


def _after(shop: pathlib.Path) -> list[str]:
    """Returns the commands that the fixture `shop` leaves."""
    return [
        command
        for index, command in enumerate(commands())
        if any("sparsectr.train" in c for c in commands()[: index + 1])
    ]
