"""Read an export with megatron-core: arguments EXPORT OUT, any number of pairs."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import get_blend_from_list
from megatron.core.tokenizers import MegatronTokenizer


def read(export: Path, out: Path) -> None:
    found = {}
    for index in sorted(export.glob("tokens/*/*.idx")):
        data = IndexedDataset(str(index.with_suffix("")))
        source = f"{index.parent.name}/{index.stem}"
        found[f"tokens/{source}"] = np.concatenate([data[i] for i in range(len(data))])
        found[f"lengths/{source}"] = np.array(data.sequence_lengths)  # its maps close with it
        found[f"documents/{source}"] = np.array(data.document_indices)
    made = json.loads((export / "export.json").read_text())
    tokenizer = MegatronTokenizer.from_pretrained(
        metadata_path={"library": "null"}, vocab_size=1023 if made["token_bytes"] == 2 else 99_999
    )
    for arguments in sorted(export.glob("stages/*.args")):
        given = dict(line.split(maxsplit=1) for line in arguments.read_text().splitlines())
        ends = [
            0,
            *map(
                int,
                given.get("--phase-transition-iterations", "").split(",")
                * ("--phase-transition-iterations" in given),
            ),
        ]
        batch, total = int(given["--global-batch-size"]), int(given["--train-samples"])
        edges = [*(end * batch for end in ends), total]
        number = int(arguments.stem.split("_")[0])
        samples = edges[number] - edges[number - 1]
        blend = get_blend_from_list(Path(given["--data-args-path"]).read_text().split())
        config = GPTDatasetConfig(
            random_seed=1,
            sequence_length=int(given["--seq-length"]),
            blend=blend,
            split=given["--split"],
            path_to_cache=str(out.parent / "cache"),
            tokenizer=tokenizer,
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            mid_level_dataset_surplus=0.005,
        )
        train, *_ = BlendedMegatronDatasetBuilder(
            GPTDataset, [samples, 0, 0], lambda: True, config
        ).build()
        rows = [train[i]["tokens"].numpy() for i in range(samples)]
        found[f"samples/{arguments.stem}"] = np.stack(rows)
    np.savez(out, **found)


# A blended dataset asks for its rank.
with tempfile.TemporaryDirectory() as meeting:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}/rank", rank=0, world_size=1
    )
for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    read(*map(Path, given))
