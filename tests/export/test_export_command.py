"""`python -m export.saved_model` on a run that is done."""

import errno
import json
import shutil

import pytest

import export.saved_model
from export.saved_model import export_run
from sparsectr.errors import InputError
from sparsectr.training.run_directory import RunDirectory
from tests.commands import assert_refused
from tests.export import broken_exports


def _extra(version, name):
    return json.loads((version / "assets.extra" / f"{name}.json").read_text())


def test_files_of_a_version(finished_run, tiny_store):
    version = finished_run.path / "saved_model" / "1"
    assert {path.name for path in version.iterdir()} == {
        *("saved_model.pb", "fingerprint.pb", "variables", "assets"),
        *("assets.extra", "batching_params.pbtxt"),
    }
    assert {path.name for path in (version / "assets.extra").iterdir()} == {
        *("signature.json", "schema.json", "config.json", "environment.json"),
        *(
            "result.json",
            "origin.json",
            "store.json",
            "tf_serving_warmup_requests",
        ),
    }
    for name in ("config", "schema", "store", "environment"):
        copied = json.loads((finished_run.path / f"{name}.json").read_text())
        assert _extra(version, name) == copied
    result = finished_run.run.read_result()
    del result["saved_model"]
    assert _extra(version, "result") == result
    origin = _extra(version, "origin")
    assert origin["workdir"] == str(finished_run.path)
    assert origin["data_dir"] == str(tiny_store.path)
    assert origin["exported_with"]["tensorflow"]
    # One asset a vocabulary, one line a value.
    for table in tiny_store.schema.tables:
        asset = version / "assets" / f"{table.name}.txt"
        values = tiny_store.vocabulary(table.name).values
        lines = asset.read_text().splitlines()
        assert lines == [str(value) for value in values.to_pylist()]


def test_description_of_the_signatures(finished_run):
    version = finished_run.path / "saved_model" / "1"
    described = _extra(version, "signature")
    assert described["format"] == "sparsectr-signature"
    assert described["version"] == 1
    assert 0 < described["fingerprint"] < 2**53
    assert described["buckets"]["history_lengths"] == [32]
    assert set(described["signatures"]) == {
        *("serving_default", "serving_examples", "encode_user", "score")
    }
    tensors = {
        tensor["name"]: tensor
        for tensor in described["signatures"]["serving_default"]["inputs"]
    }
    assert tensors["behavior_btag"]["dtype"] == "string"
    assert tensors["behavior_btag"]["shape"] == ["B", "L"]
    assert tensors["behavior_btag"]["padding"].startswith("left")
    assert tensors["user_age_level"]["padding"] is None
    id_space = tensors["candidate_brand"]["id_space"]
    size = {t["name"]: t["size"] for t in _extra(version, "schema")["tables"]}
    assert id_space == {
        "table": "brand",
        "kind": "vocabulary",
        "size": size["brand"],
        "value_type": "int",
        "missing": "-9223372036854775808",
    }


def test_failed_verification_leaves_nothing(
    finished_run, tmp_path, monkeypatch, capfd
):
    def write_another(model, config, store, folder, *rest):
        shutil.copytree(finished_run.path / "saved_model" / "1", folder)
        broken_exports.renamed_input(folder)

    monkeypatch.setattr(export.saved_model, "write_model", write_another)
    with pytest.raises(InputError, match="nothing was written"):
        export_run(finished_run.run, None, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    assert "error: " in capfd.readouterr().err


def test_run_that_can_only_be_read(finished_run, tmp_path, monkeypatch, capsys):
    def refuse(self, name, values):
        raise OSError(errno.EROFS, "Read-only file system", name)

    monkeypatch.setattr(RunDirectory, "write_json", refuse)
    before = finished_run.run.read_result()
    export.saved_model._tell_run(finished_run.run, "models/7")
    said = capsys.readouterr().err
    assert said.startswith("note: result.json of ")
    assert "Read-only file system" in said
    assert said.count("\n") == 1
    assert finished_run.run.read_result() == before


def test_number_that_another_export_takes(tmp_path, monkeypatch):
    folder = tmp_path / ".partial" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "3").mkdir()
    number = export.saved_model._next_version

    def too_late(names):
        found = number(names)
        if found == "4":  # taken between the look and the rename
            (tmp_path / "4" / "assets").mkdir(parents=True, exist_ok=True)
        return found

    monkeypatch.setattr(export.saved_model, "_next_version", too_late)
    assert export.saved_model._give_number(folder, tmp_path) == tmp_path / "5"
    assert not folder.exists()


@pytest.mark.parametrize("bucket", ["1x2", "1x2x3x4", "ax2x3", "1x0x3", ""])
def test_bucket_that_is_none(bucket, finished_run, command, tmp_path):
    done = command(
        "export.saved_model",
        f"--workdir={finished_run.path}",
        f"--output={tmp_path / 'models'}",
        f"--xla_buckets=2x3x5,{bucket}",
    )
    assert_refused(done, f"--xla_buckets={bucket} is no shape")
    assert not (tmp_path / "models").exists()


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
