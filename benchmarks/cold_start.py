"""CPU seconds of the imports of a run that starts cold, as a job of a cluster does.

    python benchmarks/cold_start.py [--repeats 4]

Each row is a fresh interpreter that imports what one kind of run imports. The rows take turns, after a round
that fills the file cache; the smallest of the repeats counts. The yardstick is the same run with lighteval's
own task module, which imports its table of metrics (inspect_ai, scipy.stats, pandas, scikit-learn, nltk)
whatever the suite uses.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

_TRAINING = (
    "import ablations.commands.run, ablations.execute, ablations.training.nanotron.engine\n"
    "import torch._dynamo, transformers.generation.utils\n"
    "import transformers.models.llama.modeling_llama\n"
    "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n"
)
_CHOICES = "import ablations.evaluation.lighteval\n"
_ANSWERS = "import ablations.evaluation.lighteval.answer_matching\n"
_WHOLE = "import lighteval.tasks.lighteval_task\n"

_ROWS = {
    "training, no task": _TRAINING,
    "choices and text": _TRAINING + _CHOICES,
    "generated answers": _TRAINING + _CHOICES + _ANSWERS,
    "lighteval's task module": _TRAINING + _CHOICES + _ANSWERS + _WHOLE,
}


def cpu_seconds(code: str) -> float:
    """Return the CPU seconds of an interpreter that executes ``code``."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"failed: {code}"
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    for code in _ROWS.values():
        cpu_seconds(code)
    rounds = [
        {name: cpu_seconds(code) for name, code in _ROWS.items()} for _ in range(options.repeats)
    ]
    least = {name: min(spent[name] for spent in rounds) for name in _ROWS}
    base, whole = least["training, no task"], least["lighteval's task module"]
    for name, spent in least.items():
        print(
            f"{name:24} {spent:5.2f} CPU-s  {spent - base:5.2f} beyond training"
            f"  {whole / spent:4.2f}x less than with the task module"
        )


if __name__ == "__main__":
    main()
