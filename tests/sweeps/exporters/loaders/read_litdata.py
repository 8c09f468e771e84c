"""Read an export with LitData: arguments EXPORT OUT, any number of pairs."""

import json
import sys
from pathlib import Path

import numpy as np
from litdata import CombinedStreamingDataset, StreamingDataset
from litdata.streaming.item_loader import TokensLoader

DRAWS = 1_000_000


def read(export: Path, out: Path) -> None:
    found = {}
    for stage in sorted(export.glob("stages/*.json")):
        plan = json.loads(stage.read_text())
        datasets = [
            StreamingDataset(path, item_loader=TokensLoader(plan["block_size"]))
            for path in plan["datasets"]
        ]
        for path, data in zip(plan["datasets"], datasets, strict=True):
            found[f"tokens/{Path(path).name}"] = np.stack(
                [data[i].numpy() for i in range(len(data))]
            )
        combined = CombinedStreamingDataset(
            datasets, weights=plan["weights"], seed=plan["seed"], iterate_over_all=False
        )
        reading = iter(combined)
        found[f"samples/{stage.stem}"] = np.stack([next(reading).numpy() for _ in range(50)])
        # Only the choice of the source: its share of a stage needs a million draws.
        chosen = [reading._get_dataset_index() for _ in range(DRAWS)]
        names = [Path(path).name for path in plan["datasets"]]
        shares = {name: chosen.count(i) / DRAWS for i, name in enumerate(names)}
        found[f"shares/{stage.stem}"] = np.array(json.dumps(shares))
    np.savez(out, **found)


for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
