"""Every model trains, resumes, evaluates, exports and verifies unasked.

By default those that SparseCTR's own tests do not stand for; all under
`slow`.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from sparsectr.model_registry import model_names
from tests.commands import ForkedCommands
from tests.tiny_run import saved_state

BY_DEFAULT = ("din", "sim_soft")

NUM_STEPS, EVERY = 6, 3

FLAGS = (
    "--dataset=alibaba",
    "--model.width=8",
    "--model.embedding_dim=4",
    "--model.dropout_rate=0.25",
    "--data.max_history=32",
    "--batch_size=16",
    "--nojit_compile",
    f"--checkpoint_every={EVERY}",
    f"--max_steps={NUM_STEPS}",
    # What is evaluated and exported is not what is trained on.
    "--ema_decay=0.8",
)


@pytest.fixture(
    scope="module",
    params=[
        name
        if name in BY_DEFAULT
        else pytest.param(name, marks=pytest.mark.slow)
        for name in model_names()
    ],
)
def trained(request, tiny_folder, tiny_store, command) -> pathlib.Path:
    path = tiny_folder / f"every_model_{request.param}"
    done = command(
        "sparsectr.train",
        *FLAGS,
        f"--model.name={request.param}",
        f"--data_dir={tiny_store.path}",
        f"--workdir={path}",
    )
    assert done.returncode == 0, done.stderr
    return path


def test_is_exported_and_verified(trained: pathlib.Path) -> None:
    # `train` fails where the export does not give the model's answers.
    result = json.loads((trained / "result.json").read_text("utf-8"))
    assert result["weights"] == "average with decay 0.8"
    version = pathlib.Path(result["saved_model"])
    assert (version / "saved_model.pb").exists()
    file = version / "assets.extra" / "signature.json"
    signatures = json.loads(file.read_text("utf-8"))["signatures"]
    assert signatures.keys() == {
        "serving_default",
        "encode_user",
        "score",
        "serving_examples",
    }


def test_is_evaluated(trained: pathlib.Path, command: ForkedCommands) -> None:
    done = command("sparsectr.evaluate", f"--workdir={trained}")
    assert done.returncode == 0, done.stderr
    result = json.loads((trained / "result.json").read_text("utf-8"))
    found = json.loads(done.stdout.splitlines()[-1])
    for name, value in result["metrics"].items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_resumes_exactly(
    trained: pathlib.Path, command: ForkedCommands
) -> None:
    path = trained.with_name(f"{trained.name}_resumed")
    shutil.copytree(
        trained, path, ignore=shutil.ignore_patterns("saved_model", "*.json")
    )
    for name in ("config.json", "schema.json", "store.json"):
        shutil.copy(trained / name, path)
    # As if it had been stopped behind the first checkpoint.
    for file in (path / "checkpoints").glob(f"ckpt-{NUM_STEPS}*"):
        file.unlink()
    state = path / "checkpoints" / "checkpoint"
    kept = [
        line.replace(f"ckpt-{NUM_STEPS}", f"ckpt-{EVERY}")
        for line in state.read_text("utf-8").splitlines()
        if line.startswith("model_checkpoint_path") or f"ckpt-{EVERY}" in line
    ]
    state.write_text("\n".join(kept) + "\n", "utf-8")
    done = command(
        "sparsectr.train", f"--workdir={path}", "--resume", "--noexport"
    )
    assert done.returncode == 0, done.stderr
    expected, found = saved_state(trained), saved_state(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
