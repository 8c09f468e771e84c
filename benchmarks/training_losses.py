"""Losses of every topology against the plain loop: largest relative difference over 50 steps.

    python benchmarks/training_losses.py [--steps 50] [--topologies one dp2 tp2 pp2 zero1]

Each topology trains the same job in worker processes of its own (torchrun, gloo); the plain loop is
the test oracle, which shares no code with the adapter but the initial weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.specs import ModelSpec
from tests.oracles.jobs import losses_of, make_job, steps_of, with_execution
from tests.oracles.plain import plain_losses
from tests.oracles.stores import write_stores

TOPOLOGIES = {
    "one": {},
    "dp2": {"dp": 2},
    "tp2": {"tp": 2},
    "pp2": {"pp": 2},
    "pp2-afab": {"pp": 2, "pp_engine": "afab"},
    "zero1": {"dp": 2, "zero_stage": 1},
}
MODEL = ModelSpec(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), choices=TOPOLOGIES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stores = write_stores(root / "stores", vocab_size=MODEL.vocab_size)
        reference: list[float] = []
        for name in arguments.topologies:
            job = make_job(
                root / name,
                stores,
                steps=arguments.steps,
                model=MODEL,
                sequence_length=64,
                peak_lr=3e-3,
            )
            job = with_execution(job, **TOPOLOGIES[name])
            batches = (torch.from_numpy(tokens) for tokens in steps_of(job))
            reference = reference or list(plain_losses(job, batches))
            outcome = NanotronTrainer().train(job)
            if outcome.status != "done":
                raise SystemExit(
                    f"{name}: {outcome.reason}\n{(root / name / 'worker.log').read_text()}"
                )
            pairs = zip(losses_of(job), reference, strict=True)
            worst = max(abs(mine - plain) / plain for mine, plain in pairs)
            print(
                f"{name:>9}  {len(reference)} steps  largest relative difference {worst:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
