"""Packaging of SparseCTR."""

import pathlib
import re

import setuptools

PACKAGES = ("sparsectr", "configs", "data_pipelines", "export", "benchmarks")

INSTALL_REQUIRES = [
    # From 2.16.2, the one that tensorflow-io works with, to the newest that
    # the suite has passed on.
    "tensorflow>=2.16.2,<2.22",
    # Older ones export a dict of inputs as a positional list (before 3.10)
    # or were never tried.
    "keras>=3.12,<4",
    # TensorFlow 2.21 no longer brings it; `tf.summary.scalar` imports it.
    "tensorboard",
    # TensorFlow bounds numpy; the rest follows.
    "numpy",
    # What is sent to a model server. TensorFlow bounds it as well.
    "protobuf",
    # 3 changed the type of string columns.
    "pandas>=3",
    "pyarrow",
    "absl-py",
    # To call a model server by REST. TensorFlow brings it by `requests`.
    "urllib3>=2",
    # TensorFlow's hash of texts, without TensorFlow: the module farmhash.
    "cityhash>=0.4.8",
    # The checksum of a TFRecord, without TensorFlow.
    "google-crc32c",
    # What the benchmarks know of processes, memory and load.
    "psutil",
    # Progress bars; nothing but Python.
    "tqdm",
    # What `zoneinfo` reads where a system has no time zones.
    "tzdata",
]

EXTRAS_REQUIRE = {
    "gpu": ["tensorflow[and-cuda]"],
    # An environment of its own. tensorflow-io 0.37.1, the newest, imports on
    # any TensorFlow but works on 2.16 alone; that one needs numpy below 2,
    # which pyarrow 26 refuses at import although its metadata allows it.
    # Its TensorBoard reads pkg_resources, which setuptools 82 dropped.
    "io": [
        "tensorflow>=2.16.2,<2.17",
        "tensorflow-io==0.37.1",
        "numpy<2",
        "pyarrow<26",
        "setuptools<82",
    ],
    # For a data set that is too large for one machine. It needs Java too.
    "spark": ["pyspark>=4,<5"],
    # The pictures that data_pipelines.describe and the benchmarks draw.
    "plots": ["matplotlib"],
    # To call a model server by gRPC.
    "client": ["grpcio"],
    # What sparsectr.recalibrate fits with; nothing that serves needs it.
    "calibration": ["scikit-learn"],
    # What sparsectr.search chooses trials with.
    "search": ["optuna>=4"],
    # What benchmarks.leaderboard needs beside: its tests and its pictures.
    "leaderboard": ["optuna>=4", "scipy", "matplotlib"],
    # Linters are bounded above: a new rule should not fail an old commit.
    "test": [
        "pytest",
        "pytest-xdist>=3.8,<4",
        "hypothesis",
        "matplotlib",
        "grpcio",
        # The server's own messages, which ours are compared with.
        "tensorflow-serving-api",
        "pyyaml",
        "moto[server]",
        "pyspark>=4,<5",
        "scikit-learn",
        "optuna>=4",
        "scipy",
        "ruff>=0.17,<0.18",
        "mypy>=2.4,<2.5",
        "pandas-stubs",
        "types-psutil",
        "types-tqdm",
    ],
}


def _version() -> str:
    path = pathlib.Path(__file__).parent / "sparsectr" / "__init__.py"
    match = re.search(r'__version__ = "(.+)"', path.read_text("utf-8"))
    if match is None:
        raise RuntimeError(f"No __version__ in {path}")
    return match[1]


setuptools.setup(
    name="sparsectr",
    version=_version(),
    description="Click prediction over long behaviour histories",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(
        include=[
            pattern for name in PACKAGES for pattern in (name, f"{name}.*")
        ]
    ),
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
