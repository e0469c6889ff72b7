"""The direction of imports, and who stays free of TensorFlow."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("sparsectr", "configs", "data_pipelines", "export", "benchmarks")

TYPES = (
    "sparsectr.errors",
    "sparsectr.schema",
    "sparsectr.statistic",
    "sparsectr.time_fields",
    "sparsectr.time_zone",
    "sparsectr.config",
    "sparsectr.config_fields",
    "sparsectr.model_recipe",
    "sparsectr.model_registry",
    "sparsectr.process.utf8",
    "sparsectr.recipes",
)
OPS = (*TYPES, "sparsectr.ops")
LAYERS = (*OPS, "sparsectr.layers")
MODELS = (*LAYERS, "sparsectr.models")

COMMANDS = (
    "sparsectr.train",
    "sparsectr.launch_local",
    "sparsectr.evaluate",
    "sparsectr.predict",
    "sparsectr.compare",
    "sparsectr.inspect_attention",
    "sparsectr.recalibrate",
)

# What a module may import of the project, by its longest matching prefix.
MAY_IMPORT = {
    "sparsectr.errors": (),
    "sparsectr.schema": TYPES,
    "sparsectr.statistic": (),
    "sparsectr.time_fields": TYPES,
    "sparsectr.time_zone": ("sparsectr.errors",),
    "sparsectr.config": TYPES,
    "sparsectr.config_fields": (),
    # For the type of what it builds alone.
    "sparsectr.model_recipe": (*TYPES, "sparsectr.models.ranking_model"),
    "sparsectr.model_registry": TYPES,
    "sparsectr.recipes": (*TYPES, "sparsectr.ops.compressed_blocks"),
    "sparsectr.config_flags": (*TYPES, "configs"),
    "sparsectr.process.command": ("sparsectr.errors",),
    "sparsectr.process.progress": (),
    "sparsectr.metrics": ("sparsectr.errors",),
    "sparsectr.calibration": ("sparsectr.errors",),
    "sparsectr.file_systems": (
        "sparsectr.errors",
        "sparsectr.process.progress",
        "sparsectr.process.quiet_tensorflow",
        "sparsectr.file_systems",
    ),
    "sparsectr.ops": OPS,
    "sparsectr.layers": LAYERS,
    # A model knows the type of its recipe.
    "sparsectr.models": (*MODELS, "configs.models"),
    "sparsectr": ("sparsectr", "data_pipelines", "configs"),
    "configs": (*TYPES, "configs", "sparsectr.ops.query_blocks"),
    "data_pipelines": (
        *TYPES,
        "sparsectr.process.command",
        "sparsectr.file_systems",
        "sparsectr.process.progress",
        "configs",
        "data_pipelines",
    ),
    # What a store's histories will be cut into is said by the very layer that
    # cuts them, so that the rule stands once.
    "data_pipelines.description.chunk_lengths": (
        "sparsectr.process.quiet_tensorflow",
        "sparsectr.layers.chunking.time_chunking",
        "sparsectr.ops.places",
    ),
    "export": ("sparsectr", "data_pipelines", "configs", "export"),
    "benchmarks": PACKAGES,
}

# Whatever the table allows: only commands know commands.
ONLY_FOR = dict.fromkeys(COMMANDS, (*COMMANDS, "export", "benchmarks"))

WITHOUT_TENSORFLOW = [
    "sparsectr/schema.py",
    "sparsectr/statistic.py",
    "sparsectr/time_*.py",
    "sparsectr/config*.py",
    "sparsectr/model_*.py",
    "sparsectr/recipes/*.py",
    "sparsectr/process/command.py",
    "sparsectr/compare.py",
    "sparsectr/comparison/*.py",
    "sparsectr/metrics.py",
    "sparsectr/calibration.py",
    "sparsectr/process/progress.py",
    "sparsectr/errors.py",
    "sparsectr/file_systems/*.py",
    "configs/**/*.py",
    "data_pipelines/prepare.py",
    "export/client.py",
    "export/client_parts/*.py",
    "export/checks/c_api.py",
    "export/requests/logged_requests.py",
    "export/graph/signature.py",
    "data_pipelines/requests/*.py",
]


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes)


def project_imports(path: pathlib.Path) -> set[str]:
    """What a file imports of the project, as dotted names.

    `from a import b` gives `a.b`, since b may be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                parents = module_name(path).split(".")
                if path.name != "__init__.py":
                    parents = parents[:-1]
                kept = parents[: len(parents) - node.level + 1]
                package = ".".join([*kept, *filter(None, [node.module])])
            names.update(f"{package}.{alias.name}" for alias in node.names)
    return {name for name in names if within(name, (*PACKAGES, "tests"))}


def forbidden_imports(path: pathlib.Path) -> list[str]:
    module = module_name(path)
    rule = max(
        (prefix for prefix in MAY_IMPORT if within(module, (prefix,))), key=len
    )
    allowed = (*MAY_IMPORT[rule], "sparsectr.__version__")
    return sorted(
        name
        for name in project_imports(path)
        if not within(name, allowed)
        or any(
            within(name, (command,)) and not within(module, importers)
            for command, importers in ONLY_FOR.items()
        )
    )


FILES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path):
    assert forbidden_imports(path) == []
    # Nor in a program that is started from text: tests are not installed.
    text = path.read_text("utf-8")
    assert re.search(r"\b(import|from|-m\W+) ?tests\b", text) is None


@pytest.mark.parametrize(
    ("file", "code", "forbidden"),
    [
        ("sparsectr/ops/a.py", "from sparsectr.layers import b", True),
        ("sparsectr/layers/a.py", "from sparsectr import models", True),
        ("sparsectr/layers/a.py", "from ..models import b", True),
        ("sparsectr/layers/a.py", "from . import b", False),
        ("sparsectr/layers/__init__.py", "from .. import train", True),
        ("sparsectr/models/a.py", "import sparsectr.train", True),
        ("sparsectr/models/a.py", "import sparsectr", True),
        ("sparsectr/models/a.py", "from sparsectr.layers import b", False),
        ("sparsectr/models/a.py", "from data_pipelines import b", True),
        ("sparsectr/models/a.py", "import configs.datasets.movielens", True),
        ("sparsectr/model_recipe.py", "import sparsectr.models.din", True),
        ("sparsectr/trainer.py", "from sparsectr import train", True),
        ("sparsectr/trainer.py", "from sparsectr import training", False),
        ("sparsectr/evaluate.py", "from sparsectr import train", False),
        ("sparsectr/train.py", "import export.saved_model", True),
        ("sparsectr/train.py", "def f():\n  import tests.reference", True),
        (
            "sparsectr/train.py",
            "from data_pipelines.reading import reader",
            False,
        ),
        ("data_pipelines/a.py", "from sparsectr import metrics", True),
        ("data_pipelines/a.py", "from sparsectr import config_flags", True),
        ("data_pipelines/a.py", "from sparsectr.process import command", False),
        ("data_pipelines/a.py", "from sparsectr import file_systems", False),
        ("sparsectr/file_systems/a.py", "import data_pipelines.b", True),
        ("configs/a.py", "from sparsectr import config", False),
        ("configs/a.py", "import data_pipelines.stores.store", True),
        ("export/a.py", "import benchmarks.speed", True),
        ("export/a.py", "from sparsectr import train, __version__", False),
        ("benchmarks/a.py", "import export.saved_model", False),
    ],
)
def test_the_rules_see(tmp_path, monkeypatch, file, code, forbidden):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert bool(forbidden_imports(path)) == forbidden


def test_these_do_not_import_tensorflow():
    modules = []
    for pattern in WITHOUT_TENSORFLOW:
        found = [module_name(path) for path in sorted(ROOT.glob(pattern))]
        assert found, f"nothing matches {pattern}"
        modules += found
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        "    heavy = {'tensorflow', 'keras'} & sys.modules.keys()\n"
        "    if heavy:\n"
        "        sys.exit(f'{module} imports {heavy}')\n"
        "print('done')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (result.stdout, result.stderr) == ("done\n", "")
