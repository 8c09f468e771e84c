"""Read and decide one study in this process, and print its CPU seconds and memory; see ``many_runs.py``.

python benchmarks/one_verdict.py runs demo_ratio
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from sweeps.verdict.decide import decide
from sweeps.verdict.study_observations import gather

imported = time.process_time()
observed = gather(Path(sys.argv[1]), sys.argv[2])
read = time.process_time()
decided = decide(observed)
cpu = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(
    f"verdict  {len(observed.runs):>6} runs  {cpu:6.1f} CPU-s (imports {imported:.1f}, reading "
    f"{read - imported:.1f}, deciding {cpu - read:.1f})  peak {peak:.0f} MB  {decided.outcome}, "
    f"{len(decided.finalists)} finalists",
    flush=True,
)
