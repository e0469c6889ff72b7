"""Days that are added to a store, in one step that can be seen from outside.

The work is done beside the store, as that of a preparation. In the end

    STORE.partial/store          becomes STORE/update-00001
    STORE.partial/manifest.json  becomes STORE/manifest.json

and only the latter, which is one rename, makes the update part of the store.
"""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

from data_pipelines.preparation.engine import Engine
from data_pipelines.preparation.plan import Plan
from data_pipelines.preparation.steps import Steps
from data_pipelines.preparation.working_folder import (
    LOCK,
    PLAN,
    folder_of,
    remove,
    working_folder,
)
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import LastDay
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.file_systems.process_lock import ProcessLock

CAN_GROW = ("alibaba", "parquet")
"""Data sets that days can be added to."""

_MANIFEST = "manifest.json"


def open_base(data_dir: Path, *, resume: bool) -> Store:
    """Opens a store to add days to, after an update that was stopped.

    Args:
        data_dir: Folder of the store.
        resume: Whether to finish what lacks its last step alone.

    Raises:
        InputError: If there is no store, or it cannot grow.
    """
    store = Store(data_dir)
    if not store.updates:
        raise InputError(
            f"{data_dir} keeps nothing to add days to: prepare it with "
            "--can_grow."
        )
    folder = folder_of(data_dir)
    if resume and (folder / LOCK).exists():
        with contextlib.closing(ProcessLock(folder / LOCK, str(folder))):
            if (folder / _MANIFEST).exists():
                _put_in_place(folder, data_dir)
            store = Store(data_dir)
            # Without a plan, or of a store that was, it is done with.
            plan = {}
            if (folder / PLAN).exists():
                plan = json.loads((folder / PLAN).read_text("utf-8"))
            if plan.get("base") != store.manifest["content"]:
                remove(folder)
    elif resume and folder.exists() and not any(folder.iterdir()):
        folder.rmdir()  # which was the last thing left to do
    return store


def as_update(plan: Plan, base: Store, *, has_test_start: bool) -> Plan:
    """Returns the plan that adds the days of another plan to a store.

    The test is their last day, unless a first day of it was named.

    Args:
        plan: The raw tables, as if a store was to be made of them.
        base: The store.
        has_test_start: Whether `plan.dataset.split` was asked for.

    Raises:
        InputError: If they are of another data set, or have other fields.
    """
    ours, theirs = plan.details["dataset"], base.manifest["dataset"]
    if ours != theirs:
        raise InputError(f"{base.path} is a store of {theirs}, not of {ours}.")
    asked = base.manifest["asked"]
    schema = json.loads(plan.dataset.schema.to_json())
    different = [k for k, v in schema.items() if asked["schema"].get(k) != v]
    if different:
        raise InputError(
            f"--update: the new days have another schema than {base.path}: "
            f"{', '.join(different)} differ. Ask for the same fields, or "
            "prepare all days anew."
        )
    dataset = plan.dataset
    if not has_test_start:
        split = LastDay(time_zone=dataset.schema.time_zone)
        dataset = dataclasses.replace(dataset, split=split)
    return dataclasses.replace(
        plan,
        dataset=dataset,
        base=base,
        can_grow=True,
        num_shards=int(base.manifest["num_shards"]),
        sample_requests=asked["sample_requests"],
    )


def is_added(plan: Plan) -> bool:
    """Whether the newest update of a store is of the same raw files."""
    if plan.base is None or plan.folder.exists():
        return False
    count = plan.base.updates[-1].num_sources
    found = plan.base.manifest["sources"][-count:]
    sources = plan.dataset.sources
    if len(sources) != len(found):
        return False
    return [SourceFile.describe(source) for source in sources] == found


def update(plan: Plan, engine: Engine, *, resume: bool) -> Store:
    """Adds days to a store.

    Args:
        plan: What is to be added, and to which store.
        engine: Where the work is done.
        resume: Whether to go on with an update that was interrupted. One
            that is done already is left as it is.

    Returns:
        The store with them.

    Raises:
        InputError: If a raw file is not as documented, or the days overlap
            what is there. The store stays as it was.
        OSError: If the disk is full or not writable. `resume` goes on.
    """
    plan.dataset.check()
    if resume and is_added(plan):
        return Store(plan.data_dir)
    folder = plan.folder
    with working_folder(folder, plan.to_dict(engine), resume=resume):
        Steps(plan, engine, folder).run()
        (folder / "store" / _MANIFEST).replace(folder / _MANIFEST)
        _put_in_place(folder, plan.data_dir)
    return Store(plan.data_dir)


def _put_in_place(folder: Path, data_dir: Path) -> None:
    """Makes a whole update part of its store."""
    manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
    target = data_dir / manifest["updates"][-1]["folder"]
    if (folder / "store").exists():
        # Of an update whose working folder was removed by hand.
        shutil.rmtree(target, ignore_errors=True)
        (folder / "store").rename(target)
    (folder / _MANIFEST).replace(data_dir / _MANIFEST)
