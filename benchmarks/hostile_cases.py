"""Make the cases of benchmarks/hostile_names.py: names and files of somebody else's that want to run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ablations.files import read_json
from ablations.terminal import quoted
from analysis.synthetic import SyntheticStudy, write_study
from benchmarks.hostile_configs import config_files, hydra_sections
from benchmarks.hostile_values import NAMES, HostileCase, pickled, python_text
from tests.conftest import SHORT_SOURCES, TINY
from tests.sweeps.promotion.conftest import FULL

__all__ = ["cases"]

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests/analysis/fixtures/runs/demo_ratio"

_ALWAYS = ("substitution", "oc.env", "script")
"""Names that go through every way in."""


def cases(*, every: bool = False) -> Iterator[HostileCase]:
    """Yield the cases of all ways in.

    Args:
        every: Each name through each way; otherwise each way has a quarter of the names, another one
            from way to way, and three of them always.
    """
    for place, way in enumerate(
        (_command_line, config_files, _imports, _tables, _records, _promotions)
    ):
        chosen = {
            kind: name
            for number, (kind, name) in enumerate(NAMES.items())
            if every or kind in _ALWAYS or (number + place) % 4 == 0
        }
        yield from way(chosen)
    yield from hydra_sections()
    yield from _folders_to_score()


# -------------------------------------------------------------------------------- command line


def _command_line(names: Mapping[str, str]) -> Iterator[HostileCase]:
    for kind, name in names.items():
        word = quoted(name.replace("\n", " "))  # Hydra's grammar knows no line break
        key = quoted(name).strip("'")
        yield HostileCase(
            f"command line, names: {kind}",
            (
                ("plan", f"study={word}"),
                ("plan", f"+mixture.weights.{key}=0.5"),
                ("verdict", f"study={word}"),
                ("ls", f"runs_dir={word}"),
                ("import", f"file={word}"),
                (name,),
            ),
            config=True,
        )
        yield HostileCase(
            f"command line, folders: {kind}",
            (
                (
                    "promote",
                    *FULL,
                    f"promotion.out={word}",
                    f"++promotion.full.cluster.nanotron={word}",
                ),
                ("export", *TINY, *SHORT_SOURCES, "format=megatron", f"out={word}", f"root={word}"),
                ("import", "file=published.yaml", f"out={word}", f"name={word}"),
            ),
            config=True,
        )


# ------------------------------------------------------------------------------------- imports


def _imports(names: Mapping[str, str]) -> Iterator[HostileCase]:
    published = ROOT / "tests/golden/promotion/chain_smollm2_1b7/4_decay.yaml"
    for kind, name in names.items():

        def prepare(workspace: Path, name: str = name) -> None:
            document = yaml.safe_load(published.read_text())
            stages = document["data_stages"]
            stages[0]["name"] = name
            for stage in stages:
                dataset = stage["data"]["dataset"]
                dataset["dataset_folder"][0] = f"data/{name}/train"
                dataset["tokenizer_name"] = name
            document["tokenizer"]["tokenizer_name_or_path"] = name
            document["checkpoints"]["checkpoints_path"] = name
            document["checkpoints"]["resume_checkpoint_path"] = name
            document["general"]["run"] = name
            document["general"]["project"] = name
            text = yaml.safe_dump(document, allow_unicode=True)
            (workspace / "theirs.yaml").write_text(text)
            try:
                shutil.copy(workspace / "theirs.yaml", workspace / f"{name.strip()}.yaml")
            except OSError:  # no file has such a name
                return

        composed = ("--config-dir", "imports/theirs/conf", "experiment=theirs")
        commands = (
            ("import", "file=theirs.yaml"),
            (
                "import",
                f"file={quoted(name.strip())}.yaml" if "\n" not in name else "file=theirs.yaml",
            ),
            ("plan", *composed),
            ("plan", "--cfg", "job", "--resolve", *composed),
            ("prepare", *composed, "prepare.mirror=empty", "progress=false"),
            ("export", "format=megatron", "tokens=none", *composed),
        )
        yield HostileCase(f"import: {kind}", commands, prepare)


# -------------------------------------------------------------------------------------- tables


def _tables(names: Mapping[str, str]) -> Iterator[HostileCase]:
    import csv

    for kind, name in names.items():

        def prepare(workspace: Path, name: str = name) -> None:
            for file, heads in (("ratios", (name, "code")), ("metrics", (f"loss {name}", "other"))):
                with (workspace / f"{file}.csv").open("w", newline="") as stream:
                    writer = csv.writer(stream)
                    writer.writerow(["run", *heads])
                    for number in range(12):
                        share = number / 11
                        writer.writerow([f"{name} {number}", share, 1 - share])
            with (workspace / "table.csv").open("w", newline="") as stream:
                line = " ".join(name.split())
                stream.write(f"# title: {line}\n# source: {line}\n# unit: {line}\n")
                writer = csv.writer(stream)
                writer.writerow(["task", name, "other"])
                for number in range(4):
                    writer.writerow([f"{name} {number}", 0.5 + number / 10, 0.4])

        words = ("ratios=ratios.csv", "metrics=metrics.csv", "families=[linear]", "resamples=2")
        commands = (
            ("fit", *words),
            ("fit", *words, "bad_rows=leave_out", "target=['loss*']", "out=other"),
            ("verdict", "table=table.csv", "verbose=true"),
        )
        yield HostileCase(f"tables: {kind}", commands, prepare)


# ------------------------------------------------------------------------------------- records


def _records(names: Mapping[str, str]) -> Iterator[HostileCase]:
    shape = SyntheticStudy(
        name="theirs", trials=6, steps=8, checkpoints=4, items=0, running=1, failed=1
    )
    for kind, name in names.items():

        def prepare(workspace: Path, name: str = name) -> None:
            sources = (f"wiki {name}", "chat")
            folder = write_study(
                workspace / "runs", replace(shape, sources=sources, stages=(name, "b"))
            )
            as_text = json.dumps(name)[1:-1]
            for path in folder.rglob("*.json*"):
                text = path.read_text()
                for plain in ("task_01", "natural", "loss is not finite", "0.1.0"):
                    text = text.replace(plain, as_text)
                path.write_text(text.replace('"host": "synthetic"', f'"host": "{as_text}"'))
            study = read_json(RECORDED / "study.json")
            study |= {"question": name, "arguments": [name, f"study={name}"], "study": "theirs"}
            (folder / "study.json").write_text(json.dumps(study))

        plain = ("study=theirs", "surrogates=[linear]")
        commands = (
            ("ls",),
            ("verdict", "study=theirs", "verbose=true", "last_checkpoints=3"),
            ("report", *plain, "markdown=report.md", "frames=frames", "frames_format=csv"),
            ("watch", "study=theirs", "once=true"),
            ("fit", *plain[:1], "families=[linear]", "resamples=2"),
            ("promote", "study=theirs", "full=demo_full"),
        )
        yield HostileCase(f"records: {kind}", commands, prepare)


# ----------------------------------------------------------------------------------- promotions


def _promotions(names: Mapping[str, str]) -> Iterator[HostileCase]:
    for kind, name in names.items():
        if "\n" in name:
            continue

        def prepare(workspace: Path, name: str = name) -> None:
            """Put the name wherever the recorded runs of the study hold a text of somebody's choice."""
            for path in (workspace / "runs/proxies").glob("*/manifest.json"):
                manifest = json.loads(path.read_text())
                manifest.pop("content_sha256", None)
                for source in manifest["config"]["source"].values():
                    source["note"] = source["licence"] = source["url"] = name
                manifest["labels"] = {"name": name}
                manifest["config"]["labels"] = {"name": name}
                manifest["host"] = name
                manifest["command"] = ["ablate", name]
                path.write_text(json.dumps(manifest))

        composed = ("--config-dir", "promotions/proxies-demo_full-001/conf", "experiment=promoted")
        word = quoted(name)
        commands = (
            ("promote", *FULL),
            (
                "promote",
                *FULL,
                f"promotion.by={word}",
                f"++promotion.full.cluster.checkpoints={word}",
            ),
            ("plan", *composed),
            ("plan", "--cfg", "job", "--resolve", *composed),
            ("promote", "compare=promotions/proxies-demo_full-001"),
            ("export", "format=megatron", "promotion=promotions/proxies-demo_full-001"),
            ("report", "study=proxies", "surrogates=none", "card=promotions/proxies-demo_full-001"),
        )
        yield HostileCase(f"promotion: {kind}", commands, prepare, config=True)


# -------------------------------------------------------------------------------------- scoring


_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 64,
}


def _folders_to_score() -> Iterator[HostileCase]:
    auto = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", None],
    }
    configs: Mapping[str, Mapping[str, Any]] = {
        "code of a known model": {**_LLAMA, "auto_map": auto},
        "code of an unknown model": {"model_type": "evil", "auto_map": auto},
        "code of a hub": {**_LLAMA, "auto_map": {"AutoModelForCausalLM": "evil/evil--evil.Evil"}},
        "a pickle": _LLAMA,
        "a pickle in the place of safetensors": _LLAMA,
        "an index that leads outside": _LLAMA,
        "attention of a hub": {**_LLAMA, "_attn_implementation": "evil/kernel"},
        "quantisation": {**_LLAMA, "quantization_config": {"quant_method": "evil"}},
    }
    for kind, config in configs.items():

        def prepare(workspace: Path, config: Mapping[str, Any] = config, kind: str = kind) -> None:
            folder = workspace / "theirs"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config))
            for name in ("evil.py", "modeling_evil.py", "tokenization_evil.py", "conftest.py"):
                (folder / name).write_text(python_text(name))
            tokenizer = {
                "tokenizer_class": "Evil",
                "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
                "chat_template": NAMES["jinja"],
            }
            made = next((workspace / "data/tokenizers").glob("*/tokenizer.json"))
            shutil.copy(made, folder / "tokenizer.json")
            (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
            weights = {
                "a pickle": ("pytorch_model.bin",),
                "a pickle in the place of safetensors": ("model.safetensors", "pytorch_model.bin"),
            }
            for name in weights.get(kind, ("pytorch_model.bin",)):
                (folder / name).write_bytes(pickled())
            if "index" in kind:
                index = {"metadata": {}, "weight_map": {"lm_head.weight": "../pickle.bin"}}
                (folder / "model.safetensors.index.json").write_text(json.dumps(index))
                (workspace / "pickle.bin").write_bytes(pickled())

        words = ("score", *TINY, *SHORT_SOURCES, "checkpoint=theirs")
        yield HostileCase(f"folder to score: {kind}", (words,), prepare)

    def checkpoint(workspace: Path) -> None:
        folder = workspace / "theirs/8"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": 8, "whole": True}))
        for name in ("model.pt", "optimizer.pt", "checkpoint_metadata.json"):
            (folder / name).write_bytes(pickled())

    words = ("score", *TINY, *SHORT_SOURCES, "checkpoint=theirs/8")
    warm = ("run", *TINY, *SHORT_SOURCES, "warm_start.checkpoint=theirs/8")
    yield HostileCase("a checkpoint of pickles", (words, warm), checkpoint)
