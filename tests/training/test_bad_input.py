"""What cannot be run ends in one line, status 2 and nothing half-written."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.store import SAMPLED_REQUESTS
from data_pipelines.synthetic_alibaba import write_sample
from tests.commands import assert_refused
from tests.tiny_run import FINISHED_FLAGS, FLAGS


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--dataset=taobao", "--dataset=taobao"),
        ("--model.attention=sparse", "should be one of <evo|full|"),
        ("--model.name=din2", "should be one of <"),
        ("--model.num_heads=3", "--model.num_heads must divide width=8"),
        ("--batch_size=0", "--batch_size must be at least 1"),
        ("--learning_rate=fast", "fast"),
        ("--model.width_=8", "model.width"),
    ],
)
def test_flag(flag, said, command, tmp_path):
    done = command(
        "sparsectr.train", *FLAGS, flag, f"--workdir={tmp_path / 'run'}"
    )
    assert_refused(done, said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["0.5", "0.45", "1.01", "nan"])
def test_a_base_that_nothing_can_be_compared_with(value, command):
    # Before the work: there is not even a run.
    done = command(
        "sparsectr.evaluate", "--workdir=nowhere", f"--base_auc={value}"
    )
    assert_refused(done, "--base_auc must be above 0.5 and at most 1", value)


def test_no_store(command, tmp_path):
    done = command(
        "sparsectr.train",
        *FLAGS,
        f"--data_dir={tmp_path / 'nowhere'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(done, f"{tmp_path / 'nowhere'} is not a store")
    assert not (tmp_path / "run").exists()


def test_no_store_in_the_default_place(command):
    done = command("sparsectr.train", "--dataset=movielens")
    assert_refused(done, "data/movielens", "data_pipelines.prepare")


def test_a_model_that_does_not_fit_the_store(tiny_store, command, tmp_path):
    done = command(
        "sparsectr.train",
        "--dataset=alibaba",
        "--model.name=sim_hard",
        "--model.category=brands",
        f"--data_dir={tiny_store.path}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(done, "--model.category must be one of cate, brand", "brand")
    assert not (tmp_path / "run").exists()


def test_damaged_store(tiny_store, command, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(tiny_store.path, store)
    (column,) = store.glob("shard-*/behaviors/time.npy")
    column.write_bytes(column.read_bytes()[:-8])
    done = command(
        "sparsectr.train",
        *FLAGS,
        f"--data_dir={store}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(done, "behaviors/time.npy")
    assert not (tmp_path / "run").exists()


def test_store_without_logged_requests(
    tiny_store, finished_run, command, tmp_path
):
    store = tmp_path / "store"
    shutil.copytree(tiny_store.path, store)
    (store / SAMPLED_REQUESTS).unlink()
    # Before it trains, and not when it is to export.
    done = command(
        "sparsectr.train",
        *FLAGS,
        f"--data_dir={store}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(done, str(store), "--sample_requests", "--noexport")
    assert not (tmp_path / "run").exists()
    done = command(
        "export.saved_model",
        f"--workdir={finished_run.path}",
        f"--data_dir={store}",
        f"--output={tmp_path / 'models'}",
    )
    assert_refused(done, str(store), "--sample_requests")
    assert list((tmp_path / "models").iterdir()) == []


def test_workdir_is_a_file(tiny_store, command, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        done = command(
            "sparsectr.train",
            *FLAGS,
            f"--data_dir={tiny_store.path}",
            f"--workdir={workdir}",
        )
        assert_refused(done, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "not a folder"


def test_full_disk(tiny_store, command, tmp_path):
    run = tmp_path / "run"
    done = command(
        "sparsectr.train",
        *FINISHED_FLAGS,
        f"--data_dir={tiny_store.path}",
        f"--workdir={run}",
        # The small files fit, a checkpoint does not.
        max_file_bytes=40_000,
    )
    assert_refused(
        done, f"{run}/checkpoints: the checkpoint of step 4 was not written"
    )
    assert list((run / "checkpoints").iterdir()) == []
    assert not (run / "result.json").exists()


def test_infinite_weights_are_not_saved(tiny_store, command, tmp_path):
    run = tmp_path / "run"
    done = command(
        "sparsectr.train",
        *FINISHED_FLAGS,
        f"--data_dir={tiny_store.path}",
        f"--workdir={run}",
        # Finite loss, but no finite weight after the first step.
        "--learning_rate=1e39",
        "--checkpoint_every=1",
    )
    batch = run / "bad_batch_step_0.npz"
    assert_refused(done, "is not finite at step 0", "16 requests", str(batch))
    assert list((run / "checkpoints").glob("*.index")) == []
    assert not (run / "result.json").exists()
    with np.load(batch) as arrays:
        assert arrays["label"].shape[0] == 16


@pytest.fixture
def copied_run(finished_run, tmp_path):
    path = tmp_path / "copied"
    shutil.copytree(
        finished_run.path, path, ignore=shutil.ignore_patterns("saved_model")
    )
    return path


def test_no_run(command, tmp_path):
    for module, flags in (
        ("sparsectr.evaluate", []),
        (
            "sparsectr.predict",
            [f"--input={tmp_path}", f"--output={tmp_path / 'a.parquet'}"],
        ),
        ("export.saved_model", [f"--output={tmp_path / 'models'}"]),
    ):
        done = command(module, f"--workdir={tmp_path / 'run'}", *flags)
        assert_refused(done, f"{tmp_path / 'run'} is not a run")
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint(copied_run, command):
    shutil.rmtree(copied_run / "checkpoints")
    done = command("sparsectr.evaluate", f"--workdir={copied_run}")
    assert_refused(done, "has no checkpoint yet")


@pytest.mark.parametrize("damage", ["cut off", "flipped bits", "gone"])
def test_damaged_checkpoint(damage, copied_run, command):
    (data,) = (copied_run / "checkpoints").glob("ckpt-54.data*")
    content = bytearray(data.read_bytes())
    if damage == "cut off":
        data.write_bytes(content[:1000])
    elif damage == "flipped bits":
        for place in range(0, len(content), 500):
            content[place] ^= 1
        data.write_bytes(content)
    else:
        data.unlink()
    done = command("sparsectr.evaluate", f"--workdir={copied_run}")
    assert_refused(done, f"{copied_run}/checkpoints/ckpt-54 is damaged")


def test_damaged_config(copied_run, command):
    path = copied_run / "config.json"
    path.write_text(path.read_text()[:-20])
    done = command("sparsectr.evaluate", f"--workdir={copied_run}")
    assert_refused(done, f"{path} is damaged")


def test_config_of_another_contract(copied_run, command):
    path = copied_run / "config.json"
    values = json.loads(path.read_text())
    del values["contract"]
    values["model"] = {"name": "sparse_ctr", "temporal_bias": True}
    path.write_text(json.dumps(values))
    for module, flags in (
        ("sparsectr.evaluate", []),
        ("export.saved_model", ["--output=models"]),
        ("sparsectr.train", ["--resume"]),
    ):
        done = command(module, f"--workdir={copied_run}", *flags)
        assert_refused(done, str(path), "of contract 1", "train anew")


def test_checkpoint_of_another_model(copied_run, command):
    path = copied_run / "config.json"
    values = json.loads(path.read_text())
    values["model"]["num_blocks"] = 2
    path.write_text(json.dumps(values))
    done = command("sparsectr.evaluate", f"--workdir={copied_run}")
    assert_refused(done, "does not fit the model", "block_1/")


def test_flag_of_another_model(command, tmp_path):
    done = command(
        "sparsectr.train",
        "--dataset=alibaba",
        "--model.name=mean_pooling",
        "--model.num_chunks=4",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(done, "model.num_chunks", "It is one of sparse_ctr")


def test_store_of_another_schema(finished_run, command, tmp_path):
    write_sample(tmp_path / "raw", num_users=40, seed=5)
    prepare("alibaba", tmp_path / "raw", tmp_path / "store")
    done = command(
        "sparsectr.evaluate",
        f"--workdir={finished_run.path}",
        f"--data_dir={tmp_path / 'store'}",
    )
    assert_refused(done, "schemas differ")


def test_store_of_another_dataset(tiny_store, command, tmp_path):
    done = command(
        "sparsectr.train",
        "--dataset=kuairand",
        f"--data_dir={tiny_store.path}",
        f"--workdir={tmp_path / 'run'}",
    )
    message = "is a store of alibaba, not of kuairand: train with --dataset="
    assert_refused(done, message)
    assert not (tmp_path / "run").exists()
