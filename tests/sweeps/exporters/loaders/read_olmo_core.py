"""Read an export with OLMo-core: arguments EXPORT OUT, any number of pairs."""

import json
import sys
from pathlib import Path

import numpy as np
import yaml
from olmo_core.data import NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig


def rows(dataset):
    dataset.prepare()
    return np.stack([dataset[i]["input_ids"].numpy() for i in range(len(dataset))])


def read(export: Path, out: Path) -> None:
    made = json.loads((export / "export.json").read_text())
    tokenizer = TokenizerConfig(
        vocab_size=1024 if made["token_bytes"] == 2 else 100_000, eos_token_id=0, pad_token_id=0
    )
    shared = {
        "tokenizer": tokenizer,
        "dtype": "uint16" if made["token_bytes"] == 2 else "uint32",
        "sequence_length": made["sequence_length"],
        "work_dir": str(out.parent / "work"),
    }

    found = {}
    for file in sorted(export.glob("tokens/*/*.npy")):
        dataset = NumpyFSLDatasetConfig(paths=[str(file)], **shared).build()
        found[f"tokens/{file.parent.name}/{file.stem}"] = rows(dataset)
    for stage in sorted(export.glob("stages/*.yaml")):
        mixture = SourceMixtureDatasetConfig.from_dict(yaml.safe_load(stage.read_text()))
        mixture.render_tables, mixture.quiet = False, True
        dataset = NumpyFSLDatasetConfig(source_mixture_config=mixture, **shared).build()
        found[f"samples/{stage.stem}"] = rows(dataset)
    np.savez(out, **found)


for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
