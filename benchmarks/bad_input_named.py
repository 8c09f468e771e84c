"""Faults that benchmarks/bad_input.py tries by name, beside the ones that it draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["NAMED", "Case"]


@dataclass(frozen=True)
class Case:
    """One command line, and what stands in the workspace for it."""

    words: tuple[str, ...]
    file: tuple[str, bytes | None] | None = None
    """Path below the workspace's ``conf`` and content of a file; without content it is a folder."""
    closed: bool = False
    """Run without the rights of root: the workspace's folder ``closed`` cannot be written."""
    name: str | None = None
    """Name of the fault; None = it was drawn."""


OF_RUNS = ("prepare", "plan", "run", "score", "promote", "export")
"""Commands that compose the config of a run."""

_NEEDED = {
    "score": ("checkpoint=files",),
    "promote": ("study=demo_ratio", "full=demo_full"),
    "export": ("format=nanotron",),
    "import": ("file=nanotron.yaml",),
    "report": ("study=demo_ratio", "surrogates=none"),
    "watch": ("study=demo_ratio", "once=true"),
    "verdict": ("study=demo_ratio",),
    "fit": ("study=demo_ratio", "families=[linear]", "resamples=2"),
    "run": ("progress=false",),
    "prepare": (
        "progress=false",
        "prepare.mirror=empty",
        "mixture=good",
        "tokenizer=synthetic_bpe",
    ),
}
"""Words that a command is not called without."""

_RUN_VALUES = (
    *("seed=-1", f"seed={2**64}", f"seed={2**63}", "seed=nan", "seed=inf", "seed=1.5", "seed=true"),
    *("+source.x=true", "+source.x=3", "mixture=1e3", "promotion=0", "+promotion=0", "source=3"),
    *("execution.threads=0", "execution.tp=0", "execution.dp=0", "execution.pp=-1"),
    *("+cluster.tp=0", "++promotion.full.cluster.tp=0", "promotion.full.cluster.nodes=0"),
    *("schedule.lr.min_ratio=-1", "schedule.lr.min_ratio=5", "schedule.lr.min_ratio=nan"),
    *("schedule.lr.warmup_steps=-5", "schedule.lr.warmup_share=-0.1", "schedule.lr.warmup_share=2"),
    *("schedule.lr.decay_steps=-1", "schedule.lr.decay_steps=1000000", "schedule.lr.tail_steps=-1"),
    *("schedule.full_tokens=-1", "schedule.full_tokens=0", "schedule.full_tokens=inf"),
    *("schedule.full_tokens=1", "schedule.total_tokens=inf", "schedule.total_tokens=nan"),
    *("mixture.epoch_cap=inf", "mixture.epoch_cap=nan", "mixture.audit_tolerance=-inf"),
    *("training.peak_lr=inf", "training.peak_lr=nan", "training.batch_size=0"),
    *("evaluation.window_tokens=1", "evaluation.window_tokens=0", "evaluation.max_items=-1"),
    *("warm_start.first_step=5", "warm_start.checkpoint=empty", "warm_start.checkpoint=nowhere"),
    *(
        "prepare.workers=-1",
        "workers=0",
        "prepare.force=maybe",
        "prepare.contamination=maybe",
        "progress=7",
        "trial=''",
    ),
    *("study=''", "study=..", "study=a/b", f"study={'s' * 300}", f"runs_dir={'r' * 300}"),
    *("runs_dir=/dev/null", "data_dir=/dev/null", "runs_dir=/dev/null/x", "data_dir=/proc/x"),
    *(
        "prepare.mirror=/dev/null",
        "runs_dir=text.jsonl",
        "data_dir=text.jsonl",
        "labels=3",
        "after=3",
    ),
    *("hydra.launcher.slots=1000000", "hydra.launcher.slots=0", "hydra.run.dir=/dev/null"),
)

_OTHER_WORDS = (
    *(("verdict", word) for word in ("study=", "study=''", "study='demo_*'", "study=[demo_ratio]")),
    *(
        ("verdict", f"{key}={value}")
        for key in ("margin", "effect", "run_sd", "alpha")
        for value in ("inf", "nan", "-1", "maybe")
    ),
    ("verdict", "last_checkpoints=0"),
    ("verdict", "table=/dev/null"),
    ("verdict", "table=empty"),
    ("verdict", "table=text.jsonl"),
    *(("fit", word) for word in ("pull=inf", "pull=-1", "folds=0", "folds=1000000", "seed=-1")),
    *(
        ("fit", word)
        for word in ("resamples=-1", "low={wiki: nan}", "high={wiki: 2}", "prior={x: 1}")
    ),
    *(
        ("fit", word)
        for word in ("caps=0", "caps.max_epochs=0", "target=[]", "families=[]", "out=/dev/null")
    ),
    ("fit", "ratios=/dev/null"),
    ("fit", "ratios=empty"),
    *(
        ("watch", word)
        for word in ("refresh_seconds=inf", "refresh_seconds=0", "rows=-1", "study=''")
    ),
    *(("watch", word) for word in ("study='*'", "tracker=nope", "tracker_dir=/dev/null")),
    *(("report", word) for word in ("study=''", "study='demo_*'", "out=/dev/null/x", "out=empty")),
    *(
        ("report", word)
        for word in ("card=empty", "card=/dev/null", "frames=/dev/null", "frames_format=x")
    ),
    *(("report", word) for word in ("markdown=empty", "verdict=maybe", "surrogates=[nope]")),
    *(("doctor", word) for word in ("+seed=1", "runs_dir=3", "data_dir=/dev/null", "runs_dir=''")),
    *(
        ("ls", word)
        for word in ("+seed=-1", "study=''", "study='*'", "runs_dir=/dev/null", "runs_dir=''")
    ),
    *(
        ("import", word)
        for word in ("file=empty", "file=/dev/null", "file=''", "name=''", "out=/dev/null")
    ),
    *(
        ("import", word)
        for word in ("nanotron=nope", "name='../x'", f"name={'n' * 300}", "+seed=1")
    ),
    *(("promote", word) for word in ("compare=empty", "compare=/dev/null", "compare=promotion")),
    *(("promote", word) for word in ("promotion.pick=''", "promotion.out=/dev/null", "compare=3")),
    *(("promote", word) for word in ("promotion.limits=0", "promotion.limits.audit_tolerance=nan")),
    *(
        ("export", word)
        for word in ("format=nope", "promotion=empty", "promotion=promotion", "tokens=x")
    ),
    *(("export", word) for word in ("out=/dev/null", "run=empty", "run=/dev/null", "root=''")),
    *(
        ("score", word)
        for word in ("checkpoint=/dev/null", "checkpoint=''", "out=/dev/null", "checkpoint=3")
    ),
)

_FILES: dict[str, bytes | None] = {
    "bomb": b"a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
    ),
    "deep list": b"weights: " + b"[" * 5000 + b"]" * 5000,
    "deep section": b"weights: " + b"{a: " * 5000 + b"1" + b"}" * 5000,
    "deep lines": b"".join(b" " * n + b"a:\n" for n in range(5000)),
    "no UTF-8": b"weights: {wiki: 1.0} # caf\xe9\n",
    "UTF-16": "weights: {wiki: 1.0}\n".encode("utf-16"),
    "NUL": b"weights: {wiki: 1.0}\n\x00\n",
    "folder": None,
    "empty": b"",
    "list": b"- 1\n",
    "python": b"weights: !!python/object/apply:os.system [echo]\n",
    "alias of itself": b"weights: &a {wiki: *a}\n",
    "infinite": b"weights: {wiki: .inf, chat: .nan}\n",
    "keys of other kinds": b"weights: {no: 1, 1e3: 2, ~: 3, [1]: 4}\n",
    "huge": b"# " + b"x" * (9 << 20),
}

_CLOSED = (
    ("run", "runs_dir=closed"),
    ("prepare", "data_dir=closed"),
    ("fit", "out=closed/fit"),
    ("report", "out=closed/report.html"),
    ("import", "out=closed"),
    ("export", "out=closed"),
    ("promote", "promotion.out=closed"),
    ("score", "out=closed/scores"),
    ("watch", "tracker_dir=closed"),
    ("ls", "runs_dir=closed"),
    ("doctor", "runs_dir=closed"),
    ("plan", "runs_dir=closed"),
)


def _named() -> Iterator[Case]:
    for number, word in enumerate(_RUN_VALUES):
        command = OF_RUNS[number % len(OF_RUNS)]
        many = ("-m",) if word.startswith("hydra.launcher") else ()
        command = "run" if many else command
        yield Case((command, *_NEEDED.get(command, ()), word, *many), name=f"{command} {word[:40]}")
    for command, word in _OTHER_WORDS:
        yield Case((command, *_NEEDED.get(command, ()), word), name=f"{command} {word[:40]}")
    for command, word in _CLOSED:
        words = (command, *_NEEDED.get(command, ()), word)
        yield Case(words, closed=True, name=f"{command} {word} (read-only)")
    groups = ("mixture", "experiment", "source", "schedule", "evaluation")
    for number, (name, content) in enumerate(_FILES.items()):
        command, group = OF_RUNS[number % len(OF_RUNS)], groups[number % len(groups)]
        chosen = "mixture=fuzz_alone" if group == "source" else f"{group}=fuzz"
        words = (command, *_NEEDED.get(command, ()), "--config-dir", "conf", chosen)
        yield Case(words, (f"{group}/fuzz.yaml", content), name=f"{command} of a file: {name}")
        words = ("import", "file=conf/strange.yaml")
        yield Case(words, ("strange.yaml", content), name=f"import of a file: {name}")
        words = ("verdict", "table=conf/strange.csv")
        yield Case(words, ("strange.csv", content), name=f"verdict of a file: {name}")
        words = ("fit", "ratios=conf/strange.csv", "metrics=metrics.csv", "families=[linear]")
        yield Case(words, ("strange.csv", content), name=f"fit of a file: {name}")


NAMED = tuple(_named())
"""Every one of them; each is tried once before a thousand cases are over."""
