import subprocess
import sys
from pathlib import Path

import numpy as np


def test_peak_is_that_of_the_process_alone(repository: Path) -> None:
    held = np.ones(50_000_000)  # 400 MB
    program = (
        "from sparsectr.process.peak_memory import peak_resident_bytes\n"
        "held = b'x' * 100_000_000\n"
        "del held\n"
        "print(peak_resident_bytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 100_000_000 < int(done.stdout) < held.nbytes
