"""Workers that are late, lost, too many, too few or not alike.

`test_golden_curve.py` compares two with one.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.commands import ROOT, run
from tests.tiny_run import FLAGS, logged, saved_state

# TensorFlow starts in each of many processes.
pytestmark = pytest.mark.slow

NUM_STEPS = 20

SMALL = (
    *FLAGS,
    "--model.num_blocks=1",
    "--ema_decay=0.8",
    f"--max_steps={NUM_STEPS}",
    "--worker_timeout=30",
    "--noexport",
)


class Cluster:
    """Workers of one run.

    Args:
        folder: Where they run.
        addresses: Of each, host and port.
        prefixes: What each command begins with.
    """

    def __init__(self, folder, addresses, prefixes=None):
        self.folder = folder
        self.addresses = addresses
        self._prefixes = prefixes or [()] * len(addresses)
        self.processes = []

    def start(self, *flags, ranks=None):
        for rank in range(len(self.addresses)) if ranks is None else ranks:
            config = {
                "cluster": {"worker": self.addresses},
                "task": {"type": "worker", "index": rank},
            }
            self.processes.append(
                subprocess.Popen(
                    [
                        *self._prefixes[rank],
                        *(sys.executable, "-m", "sparsectr.train"),
                        *flags,
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=self.folder,
                    env={
                        **os.environ,
                        "PYTHONPATH": str(ROOT),
                        "TF_CONFIG": json.dumps(config),
                    },
                )
            )

    def end(self):
        """Returns status and standard error of each."""
        ended = []
        for process in self.processes:
            _, stderr = process.communicate()
            ended.append((process.returncode, stderr))
        return ended


@pytest.fixture
def cluster(tiny_folder):
    """Makes clusters of so many workers on this machine."""
    made = []

    def make(count, **values):
        with contextlib.ExitStack() as probes:
            ports = [
                probes.enter_context(
                    socket.create_server(("localhost", 0))
                ).getsockname()[1]
                for _ in range(count)
            ]
        addresses = [f"localhost:{port}" for port in ports]
        values = {"addresses": addresses, **values}
        made.append(Cluster(tiny_folder, **values))
        return made[-1]

    yield make
    for each in made:
        for process in each.processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def alone(tiny_folder, tiny_store):
    """The folder of the same run by one process."""
    path = tiny_folder / "one_process"
    flags = (*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    done = run("sparsectr.train", *flags, cwd=tiny_folder)
    assert done.returncode == 0, done.stderr
    return path


def _assert_same(path: pathlib.Path, expected: pathlib.Path) -> None:
    ours, theirs = saved_state(path), saved_state(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        size = np.abs(value).max() if "optimizer/" in name else 0.01
        if name.startswith(("model/", "optimizer/", "average/")):
            np.testing.assert_allclose(
                ours[name], value, rtol=1e-4, atol=1e-3 * size, err_msg=name
            )
    *steps, found = logged(path)
    *expected_steps, last = logged(expected)
    assert [each["step"] for each in steps] == [*range(1, NUM_STEPS + 1)]
    for one, other in zip(steps, expected_steps, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert found["auc"] == pytest.approx(last["auc"], abs=1e-3)


@pytest.mark.parametrize("victim", [0, 1])
def test_lost_worker_and_another_number(
    victim, cluster, tiny_store, alone, tmp_path
):
    path = tmp_path / "run"
    flags = (*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    two = cluster(2)
    two.start(*flags)
    stop = random.Random(victim).uniform(5, NUM_STEPS - 5)
    while len(logged(path) if (path / "metrics.jsonl").exists() else ()) < stop:
        assert all(each.poll() is None for each in two.processes), two.end()
        time.sleep(0.01)
    two.processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, stderr = two.end()[1 - victim]
    assert time.monotonic() - killed < 300
    assert status == 2
    line = stderr.splitlines()[-1]
    assert f"has lost worker {victim} ({two.addresses[victim]})" in line
    assert "--resume" in line

    four = cluster(4)
    four.start(f"--workdir={path}", "--resume", "--noexport")
    for status, stderr in four.end():
        assert status == 0, stderr
    _assert_same(path, alone)


def test_worker_that_stands_still(cluster, tiny_store, tmp_path):
    path = tmp_path / "run"
    two = cluster(2)
    two.start(*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    while not (path / "metrics.jsonl").exists():
        time.sleep(0.1)
    two.processes[1].send_signal(signal.SIGSTOP)
    _, stderr = two.processes[0].communicate(timeout=300)
    assert two.processes[0].returncode == 2
    assert "worker 0" in stderr.splitlines()[-1]
    two.processes[1].kill()


def test_late_worker(cluster, tiny_store, alone, tmp_path):
    path = tmp_path / "run"
    flags = (*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    two = cluster(2)
    two.start(*flags, ranks=[0])
    for line in two.processes[0].stderr:
        if "worker 0" in line:
            break
    assert f"waits for worker 1 ({two.addresses[1]})" in line
    two.start(*flags, ranks=[1])
    for status, stderr in two.end():
        assert status == 0, stderr
    _assert_same(path, alone)


def test_worker_that_cannot_be_reached(cluster, tiny_store, tmp_path):
    two = cluster(2)
    two.start(
        *SMALL,
        f"--data_dir={tiny_store.path}",
        f"--workdir={tmp_path / 'run'}",
        "--worker_wait=20",
        ranks=[0],
    )
    ((status, stderr),) = two.end()
    assert status == 2
    line = stderr.splitlines()[-1]
    assert f"has waited 20 s for worker 1 ({two.addresses[1]})" in line


def test_workers_that_differ(cluster, tiny_store, tmp_path):
    path = tmp_path / "run"
    flags = (*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    two = cluster(2)
    two.start(*flags, ranks=[0])
    two.start(*flags, "--learning_rate=0.002", ranks=[1])
    for status, stderr in two.end():
        assert status == 2
        line = stderr.splitlines()[-1]
        assert "has --learning_rate 0.002, not 0.001" in line
    assert not path.exists()


def test_validation(cluster, tiny_store, tmp_path):
    flags = (
        *SMALL,
        f"--data_dir={tiny_store.path}",
        "--validation",
        "--validate_every=5",
    )
    done = run(
        "sparsectr.train", *flags, f"--workdir={tmp_path / 'one'}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    two = cluster(2)
    two.start(*flags, f"--workdir={tmp_path / 'two'}")
    for status, stderr in two.end():
        assert status == 0, stderr
    for ours, theirs in zip(
        logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True
    ):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() & {"loss", "auc", "logloss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3)


@pytest.fixture
def hosts():
    """Two network namespaces with an address each, as two hosts have."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("needs `ip netns` and the right to use it")
    names = [f"sparsectr{os.getpid()}{letter}" for letter in "ab"]
    commands = [f"netns add {name}" for name in names]
    commands += [
        f"link add {names[0][-12:]} netns {names[0]} type veth "
        f"peer name {names[1][-12:]} netns {names[1]}"
    ]
    for number, name in enumerate(names, 1):
        link = name[-12:]
        commands += [
            f"-n {name} addr add 10.213.7.{number}/24 dev {link}",
            f"-n {name} link set {link} up",
            f"-n {name} link set lo up",
        ]
    try:
        for command in commands:
            done = subprocess.run(
                ["ip", *command.split()], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"ip {command}: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts(hosts, cluster, tiny_store, alone, tmp_path):
    path = tmp_path / "run"
    two = cluster(
        2,
        addresses=["10.213.7.1:12345", "10.213.7.2:12345"],
        prefixes=[("ip", "netns", "exec", name) for name in hosts],
    )
    two.start(*SMALL, f"--data_dir={tiny_store.path}", f"--workdir={path}")
    for status, stderr in two.end():
        assert status == 0, stderr
    _assert_same(path, alone)
