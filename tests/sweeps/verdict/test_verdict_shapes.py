"""Numbers and words of verdicts of other shapes: what is minimised, confirmed, constrained, over proxies."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console

from ablations.files import write_json
from sweeps.study.definition import record_decision
from sweeps.study.specs import TaskQualitySpec
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from sweeps.verdict.task_quality import decide_task_quality
from sweeps.verdict.verdict_record import Verdict, read_verdict, write_verdict
from tests.pinned import require_pinned

Make = Callable[..., Any]
WORDS = ("sentence", "answer", "settle_text")
"""Texts that contain numbers: compared as they are printed, without them."""
SOURCES = ("edu", "dclm", "code", "math", "wiki", "books", "web")


def hold(name: str, verdict: Verdict) -> None:
    """Require the numbers of a verdict, and its words as they are printed, short and in full."""
    stored = {key: value for key, value in asdict(verdict).items() if key not in WORDS}
    assert stored.pop("pictures") == ()  # as before there were pictures
    require_pinned(name, stored, relative=1e-2, absolute=1e-4)
    lines = []
    for verbose in (False, True):
        console = Console(width=140, file=io.StringIO(), color_system=None)
        show(verdict, console, verbose=verbose)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        lines.append(" ".join(re.sub(r"([-+]?\d[\d.,e]*|─)+", "#", text).split()))
    require_pinned(f"{name}_text", lines)


def define(study: Any, **keys: Any) -> None:
    """Write the study.json that a search leaves."""
    definition = {
        "study": study.study,
        "question": "Which share of code?",
        "space": None,
        "strategy": {"baseline": "natural"},
        "objectives": {"score": {"metrics": ["score"], "direction": "maximize"}},
        "constraints": {},
        "seeds": [],
        "config": {},
        "arguments": [],
        **keys,
    }
    write_json(study.runs_dir / study.study / "study.json", definition)


def shares(number: int, sources: tuple[str, ...] = SOURCES) -> dict[str, float]:
    """Return a mixture that differs from number to number; the shares sum to 1."""
    raw = [1.0 + number * (place + 1) % 7 + 0.01 * number * place for place in range(len(sources))]
    return {source: value / sum(raw) for source, value in zip(sources, raw, strict=True)}


def trial(study: Any, number: int, seeds: range, **given: Any) -> None:
    """Write the runs of a trial; the first is the baseline."""
    for seed in seeds:
        study.run(
            f"trial-{number:04d}",
            seed,
            **{
                "weights": shares(number),
                "phase": "baseline" if number == 0 else "design",
                "name": "natural" if number == 0 else "",
                "asked_seeds": list(seeds),
                **given,
            },
        )


def test_a_minimised_objective_with_a_margin_constraints_and_lost_metrics(make_study: Make) -> None:
    study = make_study(items=40, tasks={"arc": "acc", "wiki": "bpb", "code": "bpb"})
    effects: tuple[Mapping[str, float] | float, ...] = (
        0.0,
        {"wiki": 0.05, "code": 0.01},
        {"wiki": 0.04, "code": -0.3},
        {"wiki": -0.05},
        0.012,
    )
    for number, effect in enumerate(effects):
        trial(study, number, range(2 if number else 3), effect=effect)
    trial(study, 5, range(1), effect=0.4, missing=("wiki",))
    trial(study, 6, range(1), effect=0.3, result={"audit_ok": False})
    trial(study, 7, range(1), result={"status": "failed", "reason": "out of memory\nat step 3"})
    objective = {"metrics": ["wiki/bpb", "code/*"], "direction": "minimize"}
    define(
        study,
        objectives={"text": objective},
        constraints={
            "code": {"metrics": ["code/bpb"], "direction": "minimize", "margin": 0.1},
            "arc": {"metrics": ["arc/acc"], "direction": "maximize", "bound": 0.5},
        },
    )
    options = VerdictOptions(margin=0.03, effect=0.01, alpha=0.1, last_checkpoints=4)
    hold("verdict_minimised", decide(gather(study.runs_dir, study.study), options))


def test_a_confirmed_pick_among_many_trials_and_tasks(make_study: Make) -> None:
    """Three finalists have fresh seeds, and sixteen trials were searched on nine tasks."""
    tasks = {f"quiz{n}": "acc" for n in range(6)} | {f"text{n}": "bpb" for n in range(3)}
    study = make_study(items=20, tasks=tasks, run_sd=0.004)
    gain = {f"quiz{n}": 0.06 + 0.01 * n for n in range(5)} | {"text0": -0.1, "text1": -0.2}
    for number in range(16):
        effect = gain if number == 2 else 0.002 * number
        trial(study, number, range(2 if number == 0 else 1), effect=effect, asked_seeds=[0])
        if number in (0, 2, 5, 15):
            for seed in (1, 2, 3):
                trial(study, number, range(seed, seed + 1), effect=effect, asked_seeds=[0])
    define(study)
    hold("verdict_confirmed", decide(gather(study.runs_dir, study.study)))


def test_many_trials_of_one_seed_without_a_baseline(make_study: Make) -> None:
    """Eighteen candidates, no fresh seeds, noise from checkpoints, details missing, one run unfinished."""
    study = make_study(items=12, run_sd=0.02)
    for number in range(18):
        given = {"phase": "search", "name": "", "details": number != 4}
        trial(study, number, range(1), effect=0.01 * (number % 7), **given)
    record = study.run("trial-0018", 0, weights=shares(18), phase="search")
    (record.path / "result.json").unlink()
    record.set_status("pending")
    hold("verdict_many", decide(gather(study.runs_dir, study.study)))


def test_one_seed_and_one_checkpoint_show_no_noise(make_study: Make) -> None:
    study = make_study(items=12)
    for number in range(5):
        trial(study, number, range(1), effect=0.03 * number, steps=(500,))
    hold("verdict_without_noise", decide(gather(study.runs_dir, study.study)))
    declared = decide(gather(study.runs_dir, study.study), VerdictOptions(run_sd=0.02))
    hold("verdict_declared_noise", declared)


def test_two_proxy_sizes_that_share_six_mixtures(make_study: Make) -> None:
    study = make_study(items=20, run_sd=0.03)
    large = {"model": {"hidden_size": 128, "num_hidden_layers": 4}}
    longer = {"schedule": {"total_tokens": 2e6, "stages": {"main": {"share": 1.0}}}}
    for number in range(6):
        effect = 0.04 * ((number * 2) % 5)
        trial(study, number, range(2), effect=effect)
        trial(
            study,
            number + 10,
            range(2),
            weights=shares(number),
            effect=0.1 + 0.5 * effect + 0.03 * (number % 3),
            config=large,
            phase="baseline" if number == 0 else "design",
            name="natural" if number == 0 else "",
        )
        if number < 3:
            trial(study, number + 20, range(1), weights=shares(number), config=longer, phase="x")
    verdict = decide(gather(study.runs_dir, study.study), VerdictOptions(run_sd=0.05))
    hold("verdict_proxies", verdict)


def test_task_quality_that_was_decided_and_rescaled_accuracies(make_study: Make) -> None:
    """Chance levels are rescaled; a metric of pure chance leaves the score before the verdict."""
    study = make_study(items=30, tasks={"arc": "acc", "dice": "acc", "heldout_web": "bpb"})
    terms = {
        "text": {"metrics": "heldout_*/bpb"},
        "questions": {"metrics": "*/acc", "weight": 2.0, "rescale": True},
    }
    config = {"evaluation": {"tasks": {}, "score": {"direction": "maximize", "terms": terms}}}
    for number in range(6):
        effect = {"arc": 0.05 * number, "dice": -0.35, "heldout_web": 0.0}
        trial(study, number, range(2), effect=effect, config=config, flat=("dice",))
    decision = decide_task_quality(study.runs_dir, study.study, TaskQualitySpec(apply=True))
    require_pinned(
        "task_quality", {key: value for key, value in decision.items() if key != "decided"}
    )
    define(study)
    record_decision(study.runs_dir / study.study, decision)
    hold("verdict_quality", decide(gather(study.runs_dir, study.study), VerdictOptions()))


def test_a_verdict_comes_back_from_its_file_as_it_was(make_study: Make) -> None:
    study = make_study(items=10)
    for number in range(3):
        trial(study, number, range(2), effect=0.1 * number)
    verdict = decide(gather(study.runs_dir, study.study), VerdictOptions(margin=0.01))
    write_verdict(study.runs_dir / study.study, verdict)
    assert read_verdict(study.runs_dir / study.study) == verdict


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("alpha", 0.0, False),
        ("alpha", 1.0, False),
        ("alpha", 0.999, True),
        ("margin", 0.0, True),
        ("margin", -1e-9, False),
        ("effect", 0.0, False),
        ("effect", 1e-9, True),
        ("last_checkpoints", 2, False),
        ("last_checkpoints", 3, True),
        ("run_sd", 0.0, False),
        ("run_sd", 1e-9, True),
    ],
)
def test_options_of_a_verdict_at_their_limits(name: str, value: float, good: bool) -> None:
    if good:
        assert getattr(VerdictOptions(**{name: value}), name) == value  # type: ignore[arg-type]
    else:
        with pytest.raises(Exception, match=f"{name}: out of range"):
            VerdictOptions(**{name: value})  # type: ignore[arg-type]
