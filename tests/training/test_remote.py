"""Training from and to an object store, on machines that come and go."""

import json
import pathlib
import time

import numpy as np
import pytest

from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.mirror import publish
from tests.commands import ForkedCommands, assert_refused, start
from tests.tiny_run import FINISHED_FLAGS, saved_state

pytestmark = pytest.mark.io

STORE = "s3://bucket/stores/tiny"
RUN = "s3://bucket/runs/tiny"


@pytest.fixture(scope="module")
def remote_store(object_store, tiny_store):
    publish(tiny_store.path, STORE)
    return object_store


@pytest.fixture(scope="module")
def command(remote_store, tmp_path_factory):
    """Commands that know of the object store, in an empty folder."""
    commands = ForkedCommands(tmp_path_factory.mktemp("remote"))
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def killed(remote_store, tmp_path_factory):
    """Names of the objects of a run that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    with start(
        "sparsectr.train",
        *FINISHED_FLAGS,
        f"--data_dir={STORE}",
        f"--workdir={RUN}",
        cwd=folder,
    ) as process:
        while process.poll() is None:
            if remote_store.exists("runs/tiny/checkpoints/ckpt-8.index"):
                process.kill()
                process.communicate()
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"It ended before that: {process.communicate()}")
    assert list(folder.iterdir()) == []
    names = {*remote_store.contents("runs/tiny")}
    older = "runs/tiny/saved_model/7/saved_model.pb"
    remote_store.put(older, b"an older version")
    return names


@pytest.fixture(scope="module")
def resumed(killed, remote_store, command):
    """What the command printed that went on with it on another machine."""
    remote_store.forget()
    done = command("sparsectr.train", f"--workdir={RUN}", "--resume")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def run_folder(resumed, remote_store, tmp_path_factory):
    """The finished remote run, by nothing but the server's own answers."""
    folder = tmp_path_factory.mktemp("run")
    for name, content in remote_store.contents("runs/tiny").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_run_was_killed_on_its_way(killed):
    assert {"config.json", "schema.json", "checkpoints/checkpoint"} <= killed
    assert "result.json" not in killed


def test_weights_equal_those_of_an_unbroken_local_run(run_folder, finished_run):
    expected, found = saved_state(finished_run.path), saved_state(run_folder)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_run_has_the_files_of_a_local_one(run_folder, finished_run):
    def names(path):
        return {
            file.relative_to(path).as_posix()
            for file in path.rglob("*")
            if file.is_file() and "events.out" not in file.name
        }

    version = run_folder / "saved_model" / "8"
    assert names(version) == names(finished_run.path / "saved_model" / "1")
    # Who is at work on a run is said where it is worked on.
    assert {n for n in names(run_folder) if "saved_model/" not in n} == {
        n for n in names(finished_run.path) if "saved_model/" not in n
    } - {"lock"}
    assert list(run_folder.glob("tensorboard/events.out.*"))


def test_names_are_those_of_the_remote_places(run_folder, resumed):
    config = json.loads((run_folder / "config.json").read_text())
    assert config["data_dir"] == STORE
    assert f"{RUN}: 54 steps on {STORE} (synthetic sample)" in resumed.stdout
    result = json.loads((run_folder / "result.json").read_text())
    assert result["saved_model"] == f"{RUN}/saved_model/8"
    assert "auc" in result["metrics"]
    assert resumed.stdout.endswith(f"SavedModel: {RUN}/saved_model/8\n")


def test_evaluate_on_another_machine(
    resumed, run_folder, command, object_store
):
    object_store.forget()
    done = command("sparsectr.evaluate", f"--workdir={RUN}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    result = json.loads((run_folder / "result.json").read_text())
    assert found["step"] == 54
    assert found["auc"] == pytest.approx(result["metrics"]["auc"], rel=1e-6)


def test_existing_run_is_not_overwritten(killed, command):
    done = command("sparsectr.train", *FINISHED_FLAGS, f"--workdir={RUN}")
    assert_refused(done, f"{RUN} holds a run already", "--resume")


@pytest.mark.parametrize("name", ["runs/absent", "stores/tiny"])
def test_no_run(name, command, tmp_path):
    url = f"s3://bucket/{name}"
    for module, flags in (
        ("sparsectr.evaluate", []),
        ("sparsectr.train", ["--resume"]),
        ("export.saved_model", [f"--output={tmp_path}"]),
    ):
        assert_refused(command(module, f"--workdir={url}", *flags), url)
    assert list(tmp_path.iterdir()) == []


def test_no_store(command, object_store):
    done = command(
        "sparsectr.train",
        *FINISHED_FLAGS,
        "--data_dir=s3://bucket/stores/absent",
        "--workdir=s3://bucket/runs/new",
    )
    assert_refused(done, "s3://bucket/stores/absent does not exist")
    assert object_store.contents("runs/new") == {}


def test_local_run_of_a_remote_store(remote_store, command, tmp_path):
    done = command(
        "sparsectr.train",
        *FINISHED_FLAGS,
        f"--data_dir={STORE}",
        f"--workdir={tmp_path / 'run'}",
        "--max_steps=2",
        "--noexport",
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data_dir"] == STORE
    copied = local_copy(STORE)
    assert copied.is_relative_to(remote_store.cache)
    assert isinstance(copied, pathlib.Path)
