"""Read an export with MosaicML Streaming: arguments EXPORT OUT, any number of pairs."""

import sys
from pathlib import Path

import numpy as np
import yaml
from streaming import Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory


def read(export: Path, out: Path) -> None:
    found = {}
    clean_stale_shared_memory()
    for folder in sorted(export.glob("tokens/*")):
        data = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
        found[f"tokens/{folder.name}"] = np.stack(
            [data[i]["tokens"] for i in range(data.num_samples)]
        )
        del data
    for stage in sorted(export.glob("stages/*.yaml")):
        plan = yaml.safe_load(stage.read_text())
        streams = [Stream(**stream) for stream in plan.pop("streams").values()]
        data = StreamingDataset(streams=streams, **plan)
        found[f"samples/{stage.stem}"] = np.stack([sample["tokens"] for sample in data])
        del data
    np.savez(out, **found)


for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
