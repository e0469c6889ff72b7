"""A run meets a store that is not its own, though all sizes are."""

import dataclasses
import json
import shutil

import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.store import SAMPLED_REQUESTS, Store, write_store
from tests import commands
from tests.commands import assert_refused


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run, at another path."""
    path = tmp_path / "run"
    shutil.copytree(finished_run.path, path)
    return path


@pytest.fixture
def store(tiny_store, tmp_path):
    """A copy of its store, at another path."""
    path = tmp_path / "store"
    shutil.copytree(tiny_store.path, path)
    return path


def move_ids(store):
    """Gives other values the ids of a table, as another split would."""
    path = store / "vocabularies" / "cate.json"
    first, *rest = json.loads(path.read_text())
    path.write_text(json.dumps([*rest, first]))


def flip_clicks(store):
    """Writes the store again with half of its clicks flipped."""
    whole = Store(store)
    shards = []
    for shard in whole.shards:
        requests = shard.splits["train"]
        label = requests.label.copy()
        label[::2] = 1 - label[::2]
        flipped = dataclasses.replace(requests, label=label)
        shards.append(
            dataclasses.replace(
                shard, splits={**shard.splits, "train": flipped}
            )
        )
    details = {
        name: whole.manifest[name]
        for name in ("dataset", "data_source", "sources", "split")
    }
    write_store(
        store.with_name("flipped"),
        schema=whole.schema,
        vocabularies=list(whole.vocabularies().values()),
        shards=shards,
        details=details,
    )
    shutil.copy(store / SAMPLED_REQUESTS, store.with_name("flipped"))
    shutil.rmtree(store)
    store.with_name("flipped").rename(store)


def resume(command, run, *flags):
    return command(
        "sparsectr.train", f"--workdir={run}", "--resume", "--noexport", *flags
    )


def name_store(run, store):
    """Makes `store` the place where the store was in training."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "data_dir": str(store)}))


@pytest.mark.parametrize("is_named", [False, True])
def test_other_ids_are_refused(is_named, run, store, command, tmp_path):
    move_ids(store)
    name_store(run, store)
    flags = [f"--data_dir={store}"] if is_named else []
    said = "the vocabularies of cate differ"
    for module, more in (
        ("sparsectr.evaluate", []),
        ("export.saved_model", [f"--output={tmp_path / 'models'}"]),
        ("sparsectr.train", ["--resume"]),
    ):
        done = command(module, f"--workdir={run}", *flags, *more)
        assert_refused(done, str(store), said, "--data_dir")
    assert not (tmp_path / "models").exists()


def test_verify_refuses_other_ids(run, store):
    move_ids(store)
    version = run / "saved_model" / "1"
    # With the flags it needs no origin.
    (version / "assets.extra" / "origin.json").unlink()
    done = commands.run(
        "export.verify",
        version,
        *(f"--workdir={run}", f"--data_dir={store}"),
        cwd=run,
    )
    assert done.returncode == 2
    assert "the vocabularies of cate differ" in done.stderr
    *_, last = done.stderr.splitlines()
    assert f"The Keras model of {run} gave no answers to compare" in last


def test_version_of_other_vocabularies_is_refused(run):
    # As if the run had been trained anew, and its weights came out the same.
    for name in ("store.json", "signature.json"):
        path = run / "saved_model" / "1" / "assets.extra" / name
        values = json.loads(path.read_text())
        values["vocabularies"]["cate"] = 64 * "0"
        path.write_text(json.dumps(values))
    done = commands.run("export.verify", path.parent.parent, cwd=run)
    assert_refused(done, "the vocabulary of cate is not that of the run")


def test_other_rows_are_another_store(run, store, command):
    flip_clicks(store)
    said = "the rows differ"
    assert_refused(resume(command, run, f"--data_dir={store}"), said)
    name_store(run, store)
    assert_refused(resume(command, run), said)
    # What the command would call its own store is another by now.
    evaluate = ("sparsectr.evaluate", f"--workdir={run}")
    assert_refused(command(*evaluate), "any more", said, "--data_dir")
    # Ids mean the same, so that other clicks can be asked for.
    done = command(*evaluate, f"--data_dir={store}")
    assert done.returncode == 0, done.stderr


def test_other_shards_give_other_batches(run, tiny_folder, command, tmp_path):
    store = tmp_path / "sharded"
    prepare("alibaba", tiny_folder / "raw", store, num_shards=3)
    done = resume(command, run, f"--data_dir={store}")
    assert_refused(done, "it has 3 shards and not 1", str(store))
    evaluated = [
        command("sparsectr.evaluate", f"--workdir={run}", *flags)
        for flags in ([], [f"--data_dir={store}"])
    ]
    aucs = [json.loads(d.stdout.splitlines()[-1])["auc"] for d in evaluated]
    assert aucs[1] == pytest.approx(aucs[0], abs=1e-9)


def test_run_and_store_may_move(run, store, command):
    done = resume(command, run, f"--data_dir={store}")
    assert done.returncode == 0, done.stderr
