"""The commands: where the code of each is, what config it starts from, what its options are.

Modules and dataclasses are named, not imported: ``ablations`` stays below ``sweeps`` and ``analysis``,
and a command pays for its own imports alone.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command."""

    module: str
    """Module with ``main(config: Mapping[str, Any]) -> int``; imported when the command is called."""
    config: str
    """Primary config in ``conf/``."""
    help: str
    """One line."""
    examples: tuple[str, ...]
    """Words typed after ``ablate COMMAND``."""
    options: tuple[tuple[str, str], ...] = ()
    """(key, ``module:dataclass``) of its own options: where in the config they stand, what declares them."""
    subject: str = "experiment"
    """Key that a word without a key is most likely meant for."""
    document: str | None = None
    """``module:dataclass`` of the result that ``json=true`` prints; None = it prints none."""
    document_version: int = 1
    """Version of the document."""
    positional: tuple[str, ...] = ()
    """Keys that words without a key stand for, in this order."""
    of_a_run: bool = False
    """True if its config is that of a run, with all groups and keys of one."""
    searches: bool = False
    """True if ``-m`` makes a search of it."""


RUN_OPTIONS: tuple[tuple[str, str], ...] = (
    ("", "ablations.config.options:CarryOut"),
    ("", "ablations.config.schema:RunConfig"),
    ("search", "sweeps.study.specs:SearchSpec"),
)
"""Dataclasses that declare the keys of a run's config."""

_COMMAND_OPTIONS = "sweeps.commands.command_options"

COMMANDS: dict[str, Command] = {
    "prepare": Command(
        "ablations.commands.prepare",
        "run",
        "tokenise sources into token stores",
        (
            "",
            "--config-dir mine experiment=mine prepare.workers=8",
            "experiment=smollm2_web_ratio prepare.slurm.partition=cpu",
        ),
        (
            ("prepare", "ablations.config.options:PrepareOptions"),
            ("prepare.slurm", "ablations.data.executors:SlurmSpec"),
        ),
        of_a_run=True,
    ),
    "annotate": Command(
        "ablations.commands.annotate",
        "annotate",
        "draw documents to be rated, or check ratings",
        (
            "sources=[wiki] documents=500 out=ratings.jsonl",
            "sources=[math_levels] own_scores=true documents=3000 out=levels.jsonl",
            "out=ratings.jsonl",
        ),
        (("", "ablations.config.options:AnnotateOptions"),),
        subject="sources",
    ),
    "classify": Command(
        "ablations.commands.classify",
        "classify",
        "train a classifier of quality on ratings",
        (
            "annotations=ratings.jsonl out=classifiers/edu",
            "annotations=ratings.jsonl kind=linear threshold=2",
            "annotations=ratings.jsonl pretrained=HuggingFaceFW/fineweb-edu-classifier",
        ),
        (("", "ablations.config.options:ClassifyOptions"),),
        subject="annotations",
    ),
    "split": Command(
        "ablations.commands.split",
        "split",
        "split a source into topics",
        (
            "source=wiki into=8",
            "source=wiki into=8 seed=1 out=other_topics",
            "source=fineweb_edu into=16 documents=100000 out=topics",
        ),
        (("", "ablations.config.options:SplitOptions"),),
        subject="source",
    ),
    "plan": Command(
        "ablations.commands.plan",
        "run",
        "print the cost of a run; touches nothing",
        (
            "experiment=web_proxy_30m",
            "-m experiment=demo_ratio",
            "full=smollm2_135m mixture=smollm2",
        ),
        document="ablations.commands.plan_document:PlanResult",
        of_a_run=True,
        searches=True,
    ),
    "run": Command(
        "ablations.commands.run",
        "run",
        "train and score one run; -m searches",
        (
            "mixture.weights.wiki=0.5 mixture.weights.chat=0.1",
            "-m experiment=demo_ratio",
            "-m experiment=demo_ratio hydra/launcher=slurm hydra.launcher.partition=gpu",
        ),
        of_a_run=True,
        searches=True,
    ),
    "score": Command(
        "ablations.commands.score",
        "score",
        "score a checkpoint or a model folder",
        (
            "checkpoint=runs/demo/today-0/checkpoints/1200",
            "checkpoint=models/mine evaluation=smollm2 evaluation.max_items=200",
            "checkpoint=models/mine out=scores/mine execution=gpu",
        ),
        (("", "ablations.config.options:ScoreOptions"),),
        subject="checkpoint",
        document="ablations.commands.score:ScoreResult",
        of_a_run=True,
    ),
    "ls": Command(
        "sweeps.commands.ls",
        "ls",
        "list runs with status and score",
        ("study=demo_ratio sort=score limit=5", "status=failed verbose=true", "json=true"),
        (("", f"{_COMMAND_OPTIONS}:LsOptions"),),
        subject="study",
        document="sweeps.commands.ls:LsResult",
    ),
    "diff": Command(
        "sweeps.commands.diff",
        "diff",
        "compare two runs or studies: settings, mixture, scores with noise",
        (
            "demo_ratio demo_mixture",
            "demo_ratio/trial-0003-0 demo_ratio/trial-0004-0",
            "a=demo_ratio b=archive/demo_ratio verbose=true",
        ),
        (("", f"{_COMMAND_OPTIONS}:DiffOptions"),),
        positional=("a", "b"),
    ),
    "gc": Command(
        "sweeps.commands.gc",
        "gc",
        "list what can be removed and how much it is; apply=true removes it",
        ("", "study=demo_ratio verbose=true", "study=demo_ratio apply=true"),
        (("", f"{_COMMAND_OPTIONS}:GcOptions"),),
        subject="study",
    ),
    "stop": Command(
        "sweeps.commands.stop",
        "stop",
        "end a running study; the same command goes on with it",
        (
            "study=demo_ratio",
            "study=demo_ratio wait_seconds=120",
            "study=web runs_dir=/scratch/runs",
        ),
        (("", f"{_COMMAND_OPTIONS}:StopOptions"),),
        subject="study",
    ),
    "verdict": Command(
        "sweeps.commands.verdict",
        "verdict",
        "name a winner, a tie, or the baseline",
        (
            "study=demo_ratio",
            "study=demo_ratio effect=0.01 verbose=true",
            "table=smollm2_web_ratio",
        ),
        (
            ("", f"{_COMMAND_OPTIONS}:VerdictSubject"),
            ("", "sweeps.verdict.decide:VerdictOptions"),
        ),
        subject="study",
        document="sweeps.commands.verdict:VerdictResult",
    ),
    "fit": Command(
        "sweeps.commands.fit",
        "fit",
        "fit surrogates to a study or to anyone's swarm",
        (
            "study=demo_mixture",
            "ratios=ratios.csv metrics=metrics.csv direction=minimize",
            "study=demo_mixture families=[linear,gp] +high.code=0.3",
        ),
        (("", f"{_COMMAND_OPTIONS}:FitSubject"), ("", "sweeps.swarm.fit_swarm:FitOptions")),
        subject="study",
        document="sweeps.commands.fit:FitResult",
    ),
    "repeats": Command(
        "sweeps.commands.repeats",
        "repeats",
        "fit what a repeat is worth",
        (
            "study=repeats",
            "study=repeats metric=heldout_wiki/bpb",
            "study=repeats runs_dir=elsewhere/runs",
        ),
        (("", f"{_COMMAND_OPTIONS}:RepeatsOptions"),),
        subject="study",
    ),
    "promote": Command(
        "sweeps.commands.promote",
        "promote",
        "freeze a schedule into a full run",
        (
            "study=demo_ratio full=demo_full",
            'study=web full=smollm2_1b7 +promotion.override.second_proxy="one proxy size was run"',
            "compare=promotions/demo_ratio-demo_full-1",
        ),
        (
            ("", f"{_COMMAND_OPTIONS}:CompareOptions"),
            ("promotion", "sweeps.promotion.specs:PromotionSpec"),
        ),
        subject="study",
        document="sweeps.commands.promote:PromoteResult",
        of_a_run=True,
    ),
    "export": Command(
        "sweeps.commands.export",
        "export",
        "write a schedule and its tokens for another trainer",
        (
            "format=megatron promotion=promotions/demo_ratio-demo_full-1",
            "format=litgpt run=runs/demo_ratio/today-0",
            "format=weights experiment=demo_ratio",
        ),
        (("", f"{_COMMAND_OPTIONS}:ExportOptions"),),
        subject="format",
        of_a_run=True,
    ),
    "import": Command(
        "sweeps.commands.import_",
        "import",
        "read a published nanotron config or mixture of pictures",
        (
            "file=stage1_8T.yaml",
            "file=stage1_8T.yaml name=smollm3 nanotron=smollm3",
            "file=smolvlm2_mixture.yaml out=imports",
        ),
        (("", f"{_COMMAND_OPTIONS}:ImportOptions"),),
        subject="file",
    ),
    "report": Command(
        "analysis.commands.report",
        "report",
        "write a study's report, one HTML file",
        (
            "study=demo_ratio",
            "study=demo_ratio markdown=- surrogates=none",
            "study=demo_ratio frames=tables frames_format=csv",
        ),
        (("", "analysis.commands.report:ReportOptions"),),
        subject="study",
    ),
    "watch": Command(
        "analysis.commands.watch",
        "watch",
        "follow a study in the terminal",
        ("study=demo_ratio", "study=demo_ratio once=true", "study=demo_ratio tracker=trackio"),
        (("", "analysis.commands.watch:WatchOptions"),),
        subject="study",
    ),
    "doctor": Command(
        "ablations.commands.doctor",
        "doctor",
        "list what is installed, and what to do",
        ("", "runs_dir=/scratch/runs", "data_dir=/scratch/data"),
        (("", "ablations.config.options:DoctorOptions"),),
        subject="runs_dir",
        document="ablations.commands.doctor:DoctorResult",
    ),
}
"""Every command."""
