"""Read an export with torchtitan: arguments EXPORT OUT, any number of pairs."""

import importlib.util
import itertools
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from torchtitan.hf_datasets.interleaved import InterleavedDataset
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataset

DRAWS = 1_000_000
BATCHES = 64


class Name:
    """Endless source that yields its own name."""

    def __init__(self, name):
        self.name = name

    def __iter__(self):
        return itertools.repeat(self.name)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        del state


def module_of(export: Path):
    """Return the module in the export."""
    spec = importlib.util.spec_from_file_location("stored_tokens", export / "stored_tokens.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["stored_tokens"] = module
    spec.loader.exec_module(module)
    return module


def read(export: Path, out: Path) -> None:
    stored_tokens = module_of(export)
    tokenizer = stored_tokens.tokenizer().build(tokenizer_path="unused")
    names = stored_tokens.register()
    found = {}
    for source, name in names.items():
        data = HuggingFaceTextDataset(name, None, tokenizer, seq_len=1)
        found[f"tokens/{source}"] = np.concatenate([labels.numpy() for _, labels in data])
    for stage in sorted(export.glob("stages/*.json")):
        plan = json.loads(stage.read_text())
        config = stored_tokens.dataloader(stage.stem)
        loader = config.build(
            dp_world_size=1,
            dp_rank=0,
            tokenizer=tokenizer,
            seq_len=plan["seq_len"],
            local_batch_size=4,
        )
        batches = itertools.islice(iter(loader), BATCHES)
        found[f"samples/{stage.stem}"] = np.concatenate([labels.numpy() for _, labels in batches])
        # Only the choice of the source: its share of a stage needs a million draws.
        chosen = InterleavedDataset(
            [Name(name) for name in plan["weights"]],
            [source.weight for source in config.sources],
            seed=config.seed,
        )
        drawn = list(itertools.islice(iter(chosen), DRAWS))
        found[f"order/{stage.stem}"] = np.array(drawn[: 4 * BATCHES])
        shares = {name: count / DRAWS for name, count in Counter(drawn).items()}
        found[f"shares/{stage.stem}"] = np.array(json.dumps(shares))
    np.savez(out, **found)


for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
