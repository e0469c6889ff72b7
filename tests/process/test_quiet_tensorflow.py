"""What TensorFlow says of itself, and what it must not keep back."""

import os
import pathlib

import pytest

from sparsectr.process.quiet_tensorflow import without_notes
from tests import commands

NOTES = (
    b"WARNING: All log messages before absl::InitializeLog() is called\n"
    b"I0000 00:00:1795823451.228826   28071 port.cc:153] oneDNN is on.\n"
    b"W0000 00:00:1795823451.229412   28071 a.cc:31] Something.\n"
    b"E0000 00:00:1795823454.911748   28071 cuda_platform.cc:52] failed call "
    b"to cuInit: INTERNAL: CUDA error\n"
)
ERROR = b"E0000 00:00:1795823454.911748   28071 a.cc:52] No kernel\n"


def test_a_command_that_imports_tensorflow_starts_silently(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    (tmp_path / "quiet.py").write_text(
        "from sparsectr.process import quiet_tensorflow\n"
        "quiet_tensorflow.import_tensorflow_quietly()\n"
        "import tensorflow as tf\n"
        "tf.config.list_physical_devices('GPU')\n"
        "tf.constant(1.0) + 1.0\n"
    )
    done = commands.run("quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_but_notes_is_shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    with without_notes():
        os.write(2, NOTES + ERROR)
    os.write(2, b"later\n")
    assert capfd.readouterr().err == ERROR.decode() + "later\n"


def test_what_comes_before_an_error_is_shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")

    @without_notes()
    def fail() -> None:
        os.write(2, NOTES + b"why it failed\n")
        raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "why it failed\n"


def test_notes_are_shown_to_who_asks_for_them(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with without_notes():
        os.write(2, NOTES)
    assert capfd.readouterr().err == NOTES.decode()
