"""Finished runs side by side; no run is trained for it."""

import json
import pathlib
import statistics
from typing import Any

import numpy as np
import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.comparison.comparison_picture import SIZE, draw, picture
from sparsectr.comparison.comparison_table import table
from sparsectr.comparison.finished_run import FinishedRun, check_comparable
from sparsectr.comparison.seed_groups import (
    find_base,
    group_by_seed,
    paired_differences,
)
from sparsectr.config import Config, TrainConfig
from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory
from tests.commands import assert_refused, run

METRICS = {
    "auc": 0.74,
    "auc_standard_error": 0.0036,
    "gauc": 0.57,
    "gauc_by_request": None,
    "logloss": 0.6,
    "normalized_entropy": 0.87,
    "calibration": 1.01,
    "num_candidates": 20361,
    "num_requests_counted": 60,
}
SOURCE = {"kind": "raw files", "files": [], "content": "01-23"}
RESULT = {
    "dataset": "kuairand",
    "data_source": SOURCE,
    "split": "test",
    "split_rule": {"rule": "the last day", "test_time": 1651248000},
    "floors": {"item_mean": 0.667, "user_mean": None},
    "num_parameters": {"dense": 1234, "embedding": 56789},
    "train_seconds": 30.25,
}


def write_run(
    path: pathlib.Path, *, recipe: Any, seed: int, auc: float, **changes: Any
) -> str:
    """Writes the files that a comparison reads."""
    train = TrainConfig(seed=seed, **changes.pop("train", {}))
    config = Config(dataset="kuairand", model=recipe, train=train)
    metrics = {**METRICS, "auc": auc, **changes.pop("metrics", {})}
    result = {
        **RESULT,
        "model": recipe.name,
        "seed": seed,
        "metrics": metrics,
        **changes,
    }
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    directory.write_json(
        "config.json", {"data_dir": "data", **config.to_dict()}
    )
    directory.write_json("environment.json", {"commit": "abc123"})
    directory.write_json("result.json", result)
    return str(path)


SPARSE = (0.7401, 0.7389, 0.7412)
MEAN = (0.7360, 0.7351, 0.7370)


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> list[str]:
    """Three seeds of two models; the last first."""
    return [
        write_run(tmp_path / f"{name}-{seed}", recipe=recipe, seed=seed, auc=v)
        for name, recipe, values in (
            ("sparse", SparseCTRRecipe(), SPARSE),
            ("mean", MeanPoolingRecipe(), MEAN),
        )
        for seed, v in reversed(list(enumerate(values)))
    ]


def read(paths: list[str]) -> list[FinishedRun]:
    return [FinishedRun.read(path) for path in paths]


def test_markdown(paths, tmp_path):
    done = run("sparsectr.compare", *paths, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    common, floors, *_ = done.stdout.splitlines()
    assert common == (
        "kuairand (raw files), 20,361 candidates of test (60 requests with "
        "clicks and others), the last day; content 01-23"
    )
    assert floors.endswith("item_mean 0.6670, user_mean -")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    ]
    # No request has an order, and nobody has measured frozen histories.
    assert rows[0] == [
        *("model", "seeds", "AUC", "GAUC", "NE", "logloss", "calibration"),
        *("AUC's error over users", "dense weights", "embeddings"),
        *("seconds", "commit"),
    ]
    deviation = statistics.stdev(SPARSE)
    assert rows[1] == [
        *("sparse_ctr", "0, 1, 2", f"0.7401 ± {deviation:.4f}"),
        *("0.5700 ± 0.0000", "0.8700 ± 0.0000", "0.6000 ± 0.0000"),
        *("1.0100 ± 0.0000", "0.0036", "1,234", "56,789", "30.2", "abc123"),
    ]
    assert rows[2][0] == "mean_pooling"
    differences = np.subtract(SPARSE, MEAN)
    error = differences.std(ddof=1) / 3**0.5
    assert rows[4][:4] == [
        *("sparse_ctr", "mean_pooling", "3"),
        f"{differences.mean():+.4f} ± {error:.4f}",
    ]


def test_rows_of_the_validation_and_without_common_seeds(tmp_path):
    rule = {"rule": "the last day", "validation_rule": "its newest tenth"}
    runs = [
        FinishedRun.read(
            write_run(
                tmp_path / recipe.name,
                recipe=recipe,
                seed=0,
                auc=0.7,
                split="validation",
                split_rule=rule,
            )
        )
        for recipe in (SparseCTRRecipe(), MeanPoolingRecipe())
    ]
    text = table(group_by_seed(runs))
    assert "others), its newest tenth; content" in text
    assert text.endswith(
        "no two rows have the same seeds, two or more of them."
    )


def test_json_and_picture(paths, tmp_path):
    image = tmp_path / "compared.png"
    done = run(
        "sparsectr.compare",
        *paths,
        f"--output={image}",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    found = json.loads(done.stdout)
    assert found["protocol"]["content"] == "01-23"
    assert found["floors"] == RESULT["floors"]
    group = found["groups"][0]
    assert group["metrics"]["auc"]["mean"] == pytest.approx(np.mean(SPARSE))
    assert group["metrics"]["gauc_by_request"] is None
    assert [one["metrics"]["auc"] for one in group["runs"]] == [*SPARSE]
    (pair,) = found["pairs"]
    differences = np.subtract(SPARSE, MEAN)
    assert pair["differences"]["auc"] == pytest.approx(
        {
            "mean": differences.mean(),
            "deviation": differences.std(ddof=1),
            "standard_error": differences.std(ddof=1) / 3**0.5,
            "count": 3,
        }
    )
    assert image.read_bytes().startswith(b"\x89PNG")


def test_picture_has_a_mark_and_a_line_of_legend_for_each_group(
    paths, tmp_path
):
    single = write_run(
        tmp_path / "other",
        recipe=SparseCTRRecipe(num_chunks=8),
        seed=0,
        auc=0.73,
        train_seconds=60.5,
    )
    groups = group_by_seed(read([*paths, single]))
    figure = picture(groups)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "sparse_ctr --model.num_chunks=16: 0.7401 ± 0.0012 "
        "(standard deviation of 3 seeds, each a dot)",
        "mean_pooling: 0.7360 ± 0.0010 "
        "(standard deviation of 3 seeds, each a dot)",
        "sparse_ctr --model.num_chunks=8: 0.7300 ± 0.0036 "
        "(standard error over users)",
    ]
    (axes,) = figure.axes
    marks = [container.lines[0].get_xydata() for container in axes.containers]
    np.testing.assert_allclose(
        np.concatenate(marks),
        [[30.25, np.mean(SPARSE)], [30.25, np.mean(MEAN)], [60.5, 0.73]],
    )
    draw(groups, tmp_path / "picture.png")
    assert [path.name for path in tmp_path.glob("*.png")] == ["picture.png"]
    width, _ = figure.get_size_inches() * 100
    assert width == SIZE[0]


def test_relative_improvement(paths, tmp_path):
    done = run("sparsectr.compare", *paths, "--base=mean_pooling", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| RelaImpr to mean_pooling |" in done.stdout
    expected = (np.mean(SPARSE) - 0.5) / (np.mean(MEAN) - 0.5) - 1
    assert f"| {expected:+.2%} |" in done.stdout
    groups = group_by_seed(read(paths))
    # The default: there is no DIN.
    assert find_base(groups, None) is None
    assert groups[0].to_dict()["rela_impr"] is None
    other = write_run(
        tmp_path / "other",
        recipe=MeanPoolingRecipe(),
        seed=0,
        auc=0.5,
        train={"learning_rate": 0.5},
    )
    with pytest.raises(InputError, match="must be one row; 2 are of"):
        find_base(group_by_seed(read([*paths, other])), "mean_pooling")
    with pytest.raises(InputError, match="must be one row; 0 are of"):
        find_base(groups, "din")
    # Nothing is better than chance by a share.
    (chance,) = group_by_seed(read([other]))
    assert groups[0].relative_improvement(chance) is None


def test_flags_that_change_nothing_do_not_make_a_group(tmp_path):
    recipe = SparseCTRRecipe()
    paths = [
        write_run(
            tmp_path / str(seed),
            recipe=recipe,
            seed=seed,
            auc=0.7,
            train={"log_every": 10 + seed},
        )
        for seed in (0, 1)
    ]
    other = write_run(
        tmp_path / "other",
        recipe=recipe,
        seed=0,
        auc=0.7,
        train={"learning_rate": 0.5},
    )
    groups = group_by_seed(read([*paths, other]))
    assert [group.label for group in groups] == [
        "sparse_ctr --learning_rate=0.001",
        "sparse_ctr --learning_rate=0.5",
    ]
    assert [group.seeds for group in groups] == [[0, 1], [0]]
    # Not of the same seeds.
    assert paired_differences(groups) == []


def test_frozen_histories_have_a_column_of_their_own(tmp_path):
    path = write_run(
        tmp_path / "run",
        recipe=SparseCTRRecipe(),
        seed=0,
        auc=0.7,
        metrics_frozen_history={**METRICS, "gauc": 0.64},
    )
    metrics = FinishedRun.read(path).metrics
    assert (metrics["gauc"], metrics["gauc_frozen_history"]) == (0.57, 0.64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data_source": {**SOURCE, "content": "01-24"}},
            "content (01-23, 01-24)",
        ),
        ({"split": "validation"}, "split (test, validation)"),
        ({"dataset": "movielens"}, "dataset (kuairand, movielens)"),
        (
            {"data_source": {**SOURCE, "kind": "synthetic sample"}},
            "data_source (raw files, synthetic sample)",
        ),
        (
            {"split_rule": {"rule": "the last hour", "test_time": 7}},
            '"the last hour"',
        ),
        ({"metrics": {"num_candidates": 7}}, "num_candidates (20361, 7)"),
    ],
)
def test_another_protocol_is_refused(changes, said, tmp_path):
    recipe = SparseCTRRecipe()
    one = write_run(tmp_path / "one", recipe=recipe, seed=0, auc=0.7)
    other = write_run(
        tmp_path / "other", recipe=recipe, seed=1, auc=0.7, **changes
    )
    with pytest.raises(InputError) as error:
        check_comparable(read([one, one, other]))
    assert str(error.value).startswith(f"{one} and {other} cannot stand in")
    assert said in str(error.value)


def test_the_same_run_twice_is_refused(paths):
    with pytest.raises(InputError, match=r"the same flags and seed 2: name"):
        group_by_seed(read([*paths, paths[0]]))


def test_what_is_not_a_finished_run_is_refused(tmp_path):
    path = tmp_path / "run"
    write_run(path, recipe=SparseCTRRecipe(), seed=0, auc=0.7)
    result = json.loads((path / "result.json").read_text())
    del result["data_source"]["content"], result["floors"]
    RunDirectory(path).write_json("result.json", result)
    with pytest.raises(InputError, match=r"no floors, content; an earlier"):
        FinishedRun.read(path)
    (path / "result.json").unlink()
    with pytest.raises(InputError, match=r"no result.json yet: .* --resume"):
        FinishedRun.read(path)
    with pytest.raises(InputError, match="nothing is not a run"):
        FinishedRun.read("nothing")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RUN, the folder of a finished run, is missing"),
        (["nothing", "--output=a.jpg"], "--output must end in .png"),
        (["nothing", "--output=none/a.png"], "there is no folder none"),
        (["nothing"], "nothing is not a run"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path):
    assert_refused(run("sparsectr.compare", *arguments, cwd=tmp_path), said)
