"""States of a folder with small real runs, for ``benchmarks/damage.py``: what is read, by which commands."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.damage_forks import give

__all__ = ["RUN", "SCENES", "SMALL", "Scene", "build"]

SHORT = tuple(
    f"+source.synthetic_{skill}={{origin:{{kind:synthetic,skill:{skill},documents:400,seed:0}}}}"
    for skill in ("facts", "arithmetic", "junk")
)
SMALL = (
    "experiment=synthetic",
    "schedule.total_tokens=2048",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "training.sequence_length=32",
    "training.checkpoints=2",
    "execution.threads=1",
    "evaluation.max_items=8",
    "evaluation.heldout_max_items=4",
    "progress=false",
)
"""A run of 8 steps that trains in a second; its sources come on top."""
TINY = (*SMALL, *SHORT)

ARMS = {"a": "mixture.weights.synthetic_facts=0.5", "b": "mixture.weights.synthetic_facts=0.2"}
RUN = "runs/damage/a-0"
PROMOTION = "promotions/search-demo_full-001"
FULL = f"runs/{Path(PROMOTION).name}"


def run_of(arm: str, seed: int) -> list[str]:
    """Return the command of one run."""
    given = ["study=damage", f"trial={arm}", f"seed={seed}", "mixture.normalize=true", ARMS[arm]]
    return ["run", *TINY, *given]


WARM = [
    *("run", *TINY, "study=damage", "trial=warm", "mixture.normalize=true", ARMS["a"]),
    *(f"warm_start.checkpoint={RUN}/checkpoints/8", "warm_start.first_step=0"),
]
STUDY = [
    *("run", "-m", *TINY, "study=search", "search=mixture", "search.strategy.design_trials=6"),
    *("search.budget.trials=9", "search.confirm.finalists=1", "search.confirm.seeds=[0,1]"),
    *("search.confirm.pick=false", "hydra.launcher.slots=1", "search.strategy.proposer=random"),
]
PROMOTE = [
    *("promote", "full=demo_full", "study=search", "tokenizer=synthetic_bpe"),
    *("evaluation=synthetic", "model.vocab_size=512", "model.hidden_size=32"),
    *("model.num_hidden_layers=2", "model.intermediate_size=64", "training.sequence_length=32"),
    *("promotion.full.total_tokens=8192", "promotion.full.stages=null", "evaluation.max_items=8"),
    *("promotion.full.lr.decay_share=0.1", "mixture.epoch_cap=400", "training.checkpoints=2"),
    *(
        f"+promotion.override.{gate}='it is damaged next'"
        for gate in ("beats_baseline", "contamination")
    ),
    *("+promotion.override.second_proxy='it is damaged next'", *SHORT),
]
QUICK = ("families=[linear]", "resamples=2")
SOURCES = [
    *("prepare", "experiment=synthetic", "prepare.contamination=false", "progress=false"),
    *(f"+mixture.weights.{name}=0.1" for name in ("lines", "table", "packed", "words")),
    *("mixture.normalize=true", *SHORT),
    *(
        f"+source.{name}={{origin:{{kind:files,paths:[in/{file}]}},licence:own,domain:web,tokens_available:1e6,heldout_share:0}}"
        for name, file in (
            *(("lines", "a.jsonl"), ("table", "b.parquet")),
            *(("packed", "c.jsonl.gz"), ("words", "d.txt")),
        )
    ),
]


def promoted_run(experiment: str) -> list[str]:
    """Return the command of a promoted run."""
    conf = ["--config-dir", f"{PROMOTION}/conf", f"experiment={experiment}"]
    return ["run", *conf, "execution.threads=1", "progress=false"]


JUDGE = (
    ["ls"],
    ["verdict", "study=damage"],
    ["report", "study=damage", "surrogates=none", "markdown=report.md"],
    ["watch", "study=damage", "once=true"],
)


@dataclass(frozen=True)
class Scene:
    """A state of the folder, the kinds of file that are read in it, and the commands that read them."""

    base: str
    commands: Sequence[Sequence[str]]
    kinds: Sequence[str]
    """Patterns below the folder."""
    results: Sequence[str] = (f"{RUN}/result.json",)
    """Patterns of the files whose content must not change silently."""
    foreign: bool = False
    """True for files of the user: one that reads well with another content is another input."""


SCENES = (
    Scene(
        "fresh",
        [run_of("a", 0)],
        (
            *(f"data/tokenizers/*/{n}.json" for n in ("tokenizer", "tokenizer_config", "spec")),
            *(f"data/*/synthetic_facts/{n}" for n in ("manifest.json", "heldout.jsonl")),
            *(f"data/*/synthetic_facts/train/*.{n}" for n in ("ds", "index", "metadata")),
            "data/*/.synthetic_facts.verified.json",
            "data/.benchmarks.verified.json",
            "data/benchmarks/synthetic_facts.jsonl",
            "data/benchmarks/checksums.json",
        ),
    ),
    Scene(
        "resumed",
        [run_of("a", 0)],
        (
            *(f"{RUN}/{n}" for n in ("manifest.json", "metrics.jsonl", "events.jsonl")),
            f"{RUN}/config.yaml",
            f"{RUN}/checkpoints/4/model/**/model_weight*.safetensors",
            *(f"{RUN}/checkpoints/4/{n}/*" for n in ("optimizer", "lr_scheduler", "random")),
            *(f"{RUN}/checkpoints/4/{n}.json" for n in ("checkpoint_metadata", "model_config")),
            *(f"{RUN}/checkpoints/4/{n}" for n in ("state.json", "checksums.json", "config.yaml")),
        ),
    ),
    Scene(
        "unscored",
        [run_of("a", 0)],
        (
            *(f"{RUN}/exports/8/{n}.json" for n in ("config", "tokenizer", "tokenizer_config")),
            *(f"{RUN}/exports/8/{n}" for n in ("model.safetensors", "checksums.json")),
            f"{RUN}/checkpoints/8/model/**/model_weight*.safetensors",
            f"{RUN}/checkpoints/8/state.json",
        ),
    ),
    Scene(
        "done",
        JUDGE,
        (
            *(f"{RUN}/{n}.json" for n in ("manifest", "result", "audit")),
            *(f"{RUN}/{n}.jsonl" for n in ("scores", "metrics", "events")),
            f"{RUN}/details/8/synthetic_facts.parquet",
            f"{RUN}/details/8/checksums.json",
            f"{RUN}/config.yaml",
        ),
        (f"{RUN}/result.json", "runs/damage/verdict.json", "report.md"),
    ),
    Scene(
        "warm",
        [WARM],
        (
            f"{RUN}/checkpoints/8/model/**/model_weight*.safetensors",
            *(f"{RUN}/checkpoints/8/{n}.json" for n in ("checkpoint_metadata", "model_config")),
            *(f"{RUN}/checkpoints/8/{n}.json" for n in ("state", "checksums")),
        ),
        ("runs/damage/warm-0/result.json",),
    ),
    Scene(
        "scored",
        [["score", *TINY, f"checkpoint={RUN}/exports/8", "out=again"]],
        (
            *(f"{RUN}/exports/8/{n}.json" for n in ("config", "tokenizer", "checksums")),
            f"{RUN}/exports/8/model.safetensors",
            "data/benchmarks/synthetic_facts.jsonl",
        ),
        ("again/scores.json",),
    ),
    Scene(
        "stored",
        [
            ["export", f"run={RUN}", "format=megatron", "root=/there"],
            ["export", f"run={RUN}", "format=weights"],
        ],
        (
            f"{RUN}/manifest.json",
            *(f"data/*/synthetic_facts/{n}" for n in ("manifest.json", "train/*.ds")),
            "data/*/synthetic_facts/train/*.index",
        ),
        ("exports/*/tokens/**/*", "exports/*/stages/*", "exports/*/weights.json"),
    ),
    Scene(
        "studied",
        [STUDY, ["ls"], ["verdict", "study=search"]],
        (
            *(f"runs/search/{n}.json" for n in ("study", "ledger", "finalists", "driver")),
            *(f"runs/search/{n}" for n in ("journal.log", "conf/latest")),
            "runs/search/conf/*/*/mixture/synthetic.yaml",
            *(f"runs/search/trial-0002-0/{n}.json" for n in ("trial", "manifest", "result")),
            "runs/search/trial-*-1/trial.json",
            "runs/search/trial-0003-0/pruned.json",
        ),
        (
            *(f"runs/search/trial-*/{n}" for n in ("result.json", "metrics.jsonl")),
            "runs/search/verdict.json",
        ),
    ),
    Scene(
        "judged",
        [
            ["report", "study=search", "surrogates=none", "markdown=report.md"],
            ["fit", "study=search", *QUICK],
            PROMOTE,
        ],
        (
            *(f"runs/search/{n}.json" for n in ("study", "verdict")),
            "runs/search/trial-0000-0/trial.json",
            *(f"runs/search/trial-0000-0/{n}.json" for n in ("manifest", "result", "audit")),
            "runs/search/trial-0000-0/scores.jsonl",
        ),
        ("report.md", "runs/search/fit/fit.json", "promotions/*/promotion.json"),
    ),
    Scene(
        "fitted",
        [
            ["fit", *(f"{n}=runs/search/fit/{n}.csv" for n in ("ratios", "metrics")), *QUICK],
        ],
        tuple(f"runs/search/fit/{n}" for n in ("ratios.csv", "metrics.csv", "fit.json")),
        ("fit/fit.json",),
    ),
    Scene(
        "launched",
        [promoted_run("promoted")],
        tuple(
            f"{PROMOTION}/conf/{group}/promoted.yaml"
            for group in ("experiment", "mixture", "schedule", "model", "training", "evaluation")
        ),
        (f"{FULL}/*/result.json",),
    ),
    Scene(
        "promoted",
        [
            ["promote", f"compare={PROMOTION}"],
            ["export", f"promotion={PROMOTION}", "format=weights"],
            [
                *("report", "study=search", "surrogates=none", f"card={PROMOTION}"),
                "markdown=report.md",
            ],
        ],
        (
            f"{PROMOTION}/promotion.json",
            *(f"{PROMOTION}/conf/{n}" for n in ("mixture/promoted.yaml", "checksums.json")),
            *(f"{FULL}/full-0/{n}.json" for n in ("manifest", "result", "audit")),
            *(f"{FULL}/{n}-0/scores.jsonl" for n in ("full", "baseline")),
            "runs/other-001/comparison.json",
            "runs/search/trial-0000-0/scores.jsonl",
            "runs/search/trial-0000-0/result.json",
        ),
        (
            *(f"{PROMOTION}/{n}" for n in ("comparison.json", "model_card.md")),
            *("exports/*/weights.json", "report.md"),
        ),
    ),
    Scene(
        "sources",
        [SOURCES],
        tuple(f"in/{n}" for n in ("a.jsonl", "b.parquet", "c.jsonl.gz", "d.txt")),
        ("data/*/*/manifest.json",),
        foreign=True,
    ),
    Scene(
        "prepared",
        [SOURCES],
        tuple(f"in/{n}" for n in ("a.jsonl", "b.parquet", "c.jsonl.gz", "d.txt")),
        ("data/*/*/manifest.json",),
    ),
)


def build(root: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Make the folders that the wanted scenes begin from."""
    done = root / "done"
    done.mkdir()
    prepare = [o for o in TINY if o.startswith(("experiment=", "+source.", "progress="))]
    _must(done, [["prepare", *prepare], *(run_of(arm, seed) for arm in ARMS for seed in (0, 1))])
    bases = {"done": done, "warm": done, "scored": done, "stored": done}
    for name in ("fresh", "resumed", "unscored"):
        bases[name] = root / name
        shutil.copytree(done, bases[name])
    shutil.rmtree(bases["fresh"] / "runs")
    for name in ("resumed", "unscored"):
        _unfinish(bases[name] / RUN, trained=name == "unscored")
    if {"studied", "judged", "fitted", "launched", "promoted"} & set(wanted):
        bases |= _study(root, bases["fresh"])
    if {"sources", "prepared"} & set(wanted):
        bases |= _sources(root, bases["fresh"])
    return bases


def _must(where: Path, commands: Sequence[Sequence[str]]) -> None:
    answer = give(where, commands)
    if any(answer.codes):
        raise SystemExit(f"what is to be damaged failed: {answer.codes}\n{answer.text[-6000:]}")
    for name in ("out.txt", "codes.txt"):
        (where / name).unlink()


def _study(root: Path, fresh: Path) -> dict[str, Path]:
    from ablations.files import read_json, write_sealed

    judged = root / "judged"
    shutil.copytree(fresh, judged)
    _must(judged, [STUDY, ["verdict", "study=search"], ["fit", "study=search", *QUICK]])
    studied = root / "studied"
    shutil.copytree(judged, studied)
    (studied / "runs/search/verdict.json").unlink()
    # As a driver that was killed leaves its lease, and the median rule its mark.
    lease: dict[str, Any] = {"host": socket.gethostname(), "pid": 1 << 22, "started": 0.0}
    (studied / "runs/search/driver.json").write_text(json.dumps({**lease, "token": "", "beat": 1}))
    write_sealed(studied / "runs/search/trial-0003-0/pruned.json", {"reason": "pruned: by hand"})
    launched = root / "launched"
    shutil.copytree(judged, launched)
    _must(launched, [PROMOTE])
    promoted = root / "promoted"
    shutil.copytree(launched, promoted)
    _must(promoted, [promoted_run("promoted"), promoted_run("baseline")])
    kept = read_json(promoted / FULL / "comparison.json")
    os.mkdir(promoted / "runs/other-001")
    write_sealed(promoted / "runs/other-001/comparison.json", {**kept, "promotion": "other-001"})
    return {
        "studied": studied,
        "judged": judged,
        "fitted": judged,
        "launched": launched,
        "promoted": promoted,
    }


def _sources(root: Path, fresh: Path) -> dict[str, Path]:
    import gzip

    import pyarrow as pa
    from pyarrow import parquet

    sources = root / "sources"
    shutil.copytree(fresh, sources)
    texts = [
        f"The {word} number {n} is {n * n}. " * 8 for n in range(300) for word in ("odd", "even")
    ]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    folder = sources / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text(lines)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "d.txt").write_text("\n".join(texts))
    parquet.write_table(pa.table({"text": texts}), folder / "b.parquet", write_page_checksum=True)
    prepared = root / "prepared"
    shutil.copytree(sources, prepared)
    _must(prepared, [SOURCES])
    return {"sources": sources, "prepared": prepared}


def _unfinish(run: Path, *, trained: bool) -> None:
    """Take a record back to where it was not scored, or was trained by half."""
    from ablations.record.run_record import RunRecord

    for name in ("result.json", "audit.json", "scores.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "details")
    if not trained:
        shutil.rmtree(run / "exports")
        shutil.rmtree(run / "checkpoints" / "8")
    RunRecord(run).set_status("scoring" if trained else "training")
