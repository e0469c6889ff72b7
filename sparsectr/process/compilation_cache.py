"""What XLA has compiled for a CPU, kept from run to run."""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

_FLAGS = "TF_XLA_FLAGS"


def keep_compilations(folder: Path | str) -> Path:
    """Lets TensorFlow read and write a cache; call it before its import.

    Programs are for one processor and one version: each has a folder of its
    own. XLA removes nothing from it.

    Args:
        folder: Where the cache is.

    Returns:
        The folder of this processor and version.

    Raises:
        OSError: If it cannot be made.
    """
    path = Path(folder).absolute() / _name()
    path.mkdir(parents=True, exist_ok=True)
    flags = (
        f"--tf_xla_persistent_cache_directory={path} "
        "--tf_xla_persistent_cache_device_types=CPU"
    )
    os.environ[_FLAGS] = f"{os.environ.get(_FLAGS, '')} {flags}".strip()
    return path


def _name() -> str:
    processor = platform.processor()
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        processor += "".join(
            sorted(
                {
                    line
                    for line in text.splitlines()
                    if line.startswith(("model name", "flags", "Features"))
                }
            )
        )
    except OSError:
        pass
    digest = hashlib.sha256(processor.encode()).hexdigest()[:12]
    return f"{metadata.version('tensorflow')}-{platform.machine()}-{digest}"
