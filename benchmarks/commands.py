"""CPU seconds of the commands that a user waits for, beside a bare Hydra application.

    python benchmarks/commands.py [--repeats 7] [--data DATA_DIR]

Yardstick: a script that imports Hydra and composes the same config, and does nothing with it. With
DATA_DIR (a prepared demo) ``plan`` opens the token stores too, which brings numpy in. Median over
the repeats; a run before them fills the file cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

from ablations.config.schema import conf_dir

LIMIT_SECONDS = 1.0

_BARE = f"""
from hydra import compose, initialize_config_dir
with initialize_config_dir({str(conf_dir())!r}):
    compose("run", return_hydra_config=True)
"""

_PUBLISHED = ("experiment=smollm2_1b7", "mixture.epoch_cap=13")
"""SmolLM2's own schedule, which reads OpenWebMath 12 times."""


def cpu_seconds(command: Sequence[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} failed"
    return used.ru_utime + used.ru_stime


def imports_torch(command: Sequence[str]) -> bool:
    """Return whether the command imported torch, by the interpreter's own list of imports."""
    told = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True, check=True
    )
    return any(line.split("|")[-1].strip() == "torch" for line in told.stderr.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", default=None, help="folder of prepared sources")
    options = parser.parse_args()
    ablate = [sys.executable, "-m", "ablations.cli"]
    stores = [f"data_dir={options.data}"] if options.data else []
    timed = {
        "bare Hydra": [sys.executable, "-c", _BARE],
        "ablate --help": [*ablate, "--help"],
        "ablate ls": [*ablate, "ls"],
        "ablate plan": [*ablate, "plan", *stores],
        "ablate plan, 31 sources in 4 stages": [*ablate, "plan", *_PUBLISHED],
    }
    medians: dict[str, float] = {}
    for name, command in timed.items():
        cpu_seconds(command)
        medians[name] = statistics.median(cpu_seconds(command) for _ in range(options.repeats))
        ratio = medians[name] / medians["bare Hydra"]
        torch = "imports torch" if imports_torch(command) else "no torch"
        print(f"{name:34} {medians[name]:.2f} CPU-s  {ratio:4.2f} of bare Hydra  {torch}")
    slowest = max(medians.values())
    print(f"slowest {slowest:.2f} CPU-s (limit {LIMIT_SECONDS:.1f})")


if __name__ == "__main__":
    main()
