"""`python -m export.saved_model` on a run that is done."""

import shutil

from tests.commands import assert_refused


def test_writes_the_next_version(finished_run, command, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished_run.path, path)
    output = path / "saved_model"
    done = command(
        "export.saved_model", f"--workdir={path}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"SavedModel: {output / '2'}\n")
    assert {version.name for version in output.iterdir()} == {"1", "2"}
    result = finished_run._replace(path=path).run.read_result()
    before = finished_run.run.read_result()
    assert result == {**before, "saved_model": str(output / "2")}


def test_full_disk_leaves_nothing(finished_run, command, tmp_path):
    done = command(
        "export.saved_model",
        f"--workdir={finished_run.path}",
        f"--output={tmp_path / 'models'}",
        max_file_bytes=20_000,
    )
    assert_refused(done, "was not written", "File too large")
    assert list((tmp_path / "models").iterdir()) == []
    assert finished_run.run.read_result()["saved_model"].endswith("/1")


def test_output_is_a_file(finished_run, command, tmp_path):
    (tmp_path / "models").write_text("not a folder")
    done = command(
        "export.saved_model",
        f"--workdir={finished_run.path}",
        f"--output={tmp_path / 'models'}",
    )
    assert_refused(done, str(tmp_path / "models"))
    assert (tmp_path / "models").read_text() == "not a folder"
