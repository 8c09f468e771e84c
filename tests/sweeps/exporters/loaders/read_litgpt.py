"""Read an export with litgpt's data module: arguments EXPORT OUT, any number of pairs."""

import json
import sys
from pathlib import Path

import numpy as np
from litgpt.data import LitData


def read(export: Path, out: Path) -> None:
    made = json.loads((export / "export.json").read_text())
    found = {}
    for folder in sorted(export.glob("tokens/*")):
        module = LitData(
            data_path=folder.parent, split_names=(folder.name, folder.name), num_workers=0
        )
        # litgpt adds the token that is only a target.
        module.connect(batch_size=1, max_seq_length=made["sequence_length"])
        loader = module.val_dataloader()
        found[f"tokens/{folder.name}"] = np.concatenate([batch.numpy() for batch in loader])
    np.savez(out, **found)


for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
