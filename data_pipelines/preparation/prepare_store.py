"""A store from raw files: all steps, or those that are left."""

import json
from pathlib import Path

from data_pipelines.preparation.engine import Engine
from data_pipelines.preparation.plan import Plan
from data_pipelines.preparation.steps import Steps
from data_pipelines.preparation.working_folder import folder_of, working_folder
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.stores.new_folder import check_free
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError


def run(plan: Plan, engine: Engine, *, resume: bool) -> Store:
    """Prepares a store.

    Args:
        plan: What is to be prepared.
        engine: Where the work is done.
        resume: Whether to go on with a preparation that was interrupted. One
            that is done already is left as it is.

    Returns:
        The new store.

    Raises:
        InputError: If a raw file is not as documented; nothing is left then.
            Or if there is a store or an interrupted preparation already.
        OSError: If the disk is full or not writable. `resume` goes on.
    """
    plan.dataset.check()
    folder = plan.folder
    if resume and is_finished(plan.data_dir):
        _check_finished(plan)
        return Store(plan.data_dir)
    # Stopped after the rename below, it has only the folder left to remove.
    is_done = (
        resume
        and folder.exists()
        and not (folder / "store").exists()
        and (plan.data_dir / "manifest.json").exists()
    )
    if not is_done:
        check_free(plan.data_dir)
    with working_folder(folder, plan.to_dict(engine), resume=resume):
        if not is_done:
            Steps(plan, engine, folder).run()
            # POSIX lets a folder replace an empty one and no other.
            (folder / "store").rename(plan.data_dir)
    return Store(plan.data_dir)


def is_finished(data_dir: Path) -> bool:
    """Whether there is a whole store, and no work left to do for it."""
    return (data_dir / "manifest.json").exists() and not folder_of(
        data_dir.absolute()
    ).exists()


def _check_finished(plan: Plan) -> None:
    """Raises InputError if a whole store is not the one that is asked for."""
    manifest = Store(plan.data_dir).manifest
    if "asked" not in manifest:
        raise InputError(
            f"{plan.data_dir} is a whole store, but of an earlier version, "
            "which does not say what was asked for. Keep it as it is, or "
            "remove it to prepare anew."
        )
    found = {**manifest["asked"], "files": manifest.get("sources")}
    asked = {
        **json.loads(json.dumps(plan.asked)),
        # Last, since it reads them.
        "files": [SourceFile.describe(s) for s in plan.dataset.sources],
    }
    for key, value in asked.items():
        if found.get(key) != value:
            raise InputError(
                f"{plan.data_dir} is a whole store, but its {key} differ from "
                "what is asked for now. Name another --data_dir, or remove "
                "that folder."
            )
