"""Plans, rates, scores and overlaps of several configs are those before; rules hold at their edges."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.contamination import OverlapRule, TaskIndex, scan
from ablations.errors import ConfigError, UserError
from ablations.evaluation.metric_matching import metric_names, score_problems, unmatched
from ablations.evaluation.score_rule import (
    LinearForm,
    MetricFacts,
    facts_of_names,
    formula,
    linear_form,
    removable,
)
from ablations.evaluation.specs import EvaluationSpec, ScoreRule, ScoreTerm, TaskSpec
from ablations.execute import identity, make_job, open_work, trial_name
from ablations.mixture.audit import audit
from ablations.mixture.constraints import beyond_cap, broken_caps, simulated_slices
from ablations.mixture.mixture import Mixture, natural, uniform, unimax
from ablations.mixture.sampler import Sampler
from ablations.mixture.schedule import LearningRate, Schedule, Stage, decay_words
from ablations.mixture.specs import LearningRateSpec, MixtureSpec, ScheduleSpec, StageSpec
from ablations.plan import Plan, make_plan
from tests.pinned import require_pinned
from tests.test_plan import EVEN, FULL, SOURCES, STATED, composed

CONFIGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "over its cap": ("mixture.epoch_cap=0.01",),
    "exempt": (
        "mixture.epoch_cap=0.01",
        "+mixture.epoch_cap_exempt.synthetic_facts=published",
    ),
    "simulated epochs": (*EVEN, *STATED, *FULL),
    "not prepared": (*EVEN, *STATED, "data_dir=nowhere", "training.dtype=bfloat16"),
    "full caps exempt": (
        *EVEN,
        *STATED,
        *FULL,
        "data_dir=nowhere",
        "++source.synthetic_junk.tokens_available=5_000",
        "++source.synthetic_facts.tokens_available=5_000",
        "+mixture.epoch_cap_exempt.synthetic_facts=published",
    ),
    "stages": (
        "~schedule.stages.main",
        "+schedule.stages={stable:{share:rest},decay:{share:0.25}}",
        "schedule.lr.decay_share=decay",
        "schedule.lr.shape=1-sqrt",
        "schedule.lr.min_ratio=0.1",
    ),
    "small vocabulary": ("model.vocab_size=100",),
    "large": (
        "model.hidden_size=4096",
        "model.num_hidden_layers=48",
        "model.intermediate_size=16384",
        "training.batch_size=64",
        "training.sequence_length=2048",
        "model.max_position_embeddings=2048",
        "schedule.total_tokens=1e9",
        "data_dir=nowhere",
        "mixture.epoch_cap=1e9",
    ),
    "one step in": ("warm_start.checkpoint=somewhere", "warm_start.first_step=4"),
}


def told(plan: Plan) -> dict[str, Any]:
    """Return the plan in plain values, without the cost, which depends on the GPUs of the machine."""
    problems = [str(problem) for problem in plan.problems]
    memory = {
        device: one if isinstance(one, str) else asdict(one) for device, one in plan.memory.items()
    }
    stages = [[stage.name, stage.steps, dict(stage.mixture)] for stage in plan.schedule.stages]
    kept = {
        name: value
        for name, value in vars(plan).items()
        if name not in ("schedule", "learning_rate", "rows", "memory", "problems", "cost")
    }
    return {
        **kept,
        "rows": [asdict(row) for row in plan.rows],
        "memory": memory,
        "problems": problems,
        "stages": stages,
        "rate": asdict(plan.learning_rate),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_plan_is_that_before(workspace: Path, name: str) -> None:
    require_pinned(f"plan_{name.replace(' ', '_')}", told(make_plan(composed(*CONFIGS[name]))))


def test_the_default_settings_of_mixtures_schedules_and_rates_are_those_before() -> None:
    """They enter every record: a study that leaves them out rests on them."""
    mixture = MixtureSpec(weights={"a": 1.0})
    spec = ScheduleSpec(total_tokens=32_000.0)
    schedule = spec.build(mixture, sequence_length=32, batch_size=10)
    rate = spec.lr.build(peak=1.0, schedule=schedule)
    found = {"mixture": asdict(mixture), "schedule": asdict(spec), "rate": asdict(rate)}
    require_pinned("defaults_of_schedules", found)


def test_rates_of_each_kind_and_shape_are_those_before() -> None:
    one = Schedule(
        stages=(Stage(name="a", steps=40, mixture=Mixture({"x": 1.0})),),
        sequence_length=8,
        batch_size=4,
    )
    found: dict[str, Any] = {}
    for kind in ("wsd", "cosine", "constant"):
        for shape in ("linear", "1-sqrt", "cosine"):
            for tail in (0, 5, -3):
                spec = LearningRateSpec(
                    kind=kind,
                    shape=shape,
                    tail_steps=tail,
                    warmup_share=0.1,
                    decay_share=0.3,
                    min_ratio=0.05,
                )
                rate = spec.build(peak=2.0, schedule=one)
                rates = [rate.at(step) for step in range(0, 40, 3)]
                words = decay_words(**asdict(rate))
                found[f"{kind} {shape} {tail}"] = [rates, rate.decay_start, words]
    require_pinned("learning_rates", found)


@pytest.mark.parametrize(
    ("warmup", "decay", "tail", "good"),
    [(20, 20, 0, True), (21, 20, 0, False), (0, 20, -20, True), (0, 20, -21, False)],
)
def test_a_rate_may_fill_its_schedule_and_no_more(
    warmup: int, decay: int, tail: int, good: bool
) -> None:
    """A schedule may end where its decay begins: ``tail_steps`` then takes the whole decay away."""

    def made() -> LearningRate:
        return LearningRate(
            peak=1.0, warmup_steps=warmup, decay_steps=decay, total_steps=40, tail_steps=tail
        )

    if good:
        assert made().factor(39) == pytest.approx(1.0 if tail else 0.0)
    else:
        with pytest.raises(ConfigError, match=r"schedule\.lr"):
            made()


@pytest.mark.parametrize("tokens", [0.0, -1.0, math.inf, math.nan])
def test_a_stage_needs_a_finite_budget(tokens: float) -> None:
    with pytest.raises(ConfigError, match="needs a budget above zero"):
        ScheduleSpec(stages={"a": StageSpec(tokens=tokens)})


def test_refusals_of_schedules_and_mixtures_are_those_before() -> None:
    cases: dict[str, dict[str, Any]] = {
        "both": {"stages": {"a": {"share": 1.0, "tokens": 5.0}}, "total_tokens": 5.0},
        "two rests": {
            "stages": {"a": {"share": "rest"}, "b": {"share": "rest"}},
            "total_tokens": 5.0,
        },
        "no total": {"stages": {"a": {"share": 1.0}}},
        "sum": {"stages": {"a": {"share": 0.5}, "b": {"tokens": 2.0}}, "total_tokens": 5.0},
        "rest of nothing": {
            "stages": {"a": {"share": "rest"}, "b": {"tokens": 5.0}},
            "total_tokens": 5.0,
        },
        "budget": {"total_tokens": -1.0, "full_tokens": math.inf},
    }
    found: dict[str, list[str]] = {}
    for name, case in cases.items():
        if "stages" in case:
            case["stages"] = {key: StageSpec(**value) for key, value in case["stages"].items()}
        with pytest.raises(ConfigError) as caught:
            ScheduleSpec(**case)
        found[name] = str(caught.value).splitlines()
    for name, weights in {"negative": {"a": -1.0}, "zero": {"a": 0.0}, "sum": {"a": 0.9}}.items():
        with pytest.raises(ConfigError) as caught:
            Mixture(weights)
        found[f"weights {name}"] = str(caught.value).splitlines()
    for changes in ({"epoch_cap": 0.0}, {"audit_tolerance": 0.0}, {"epoch_cap_exempt": {"a": " "}}):
        with pytest.raises(ConfigError) as caught:
            MixtureSpec(weights={"a": 1.0}, **changes)
        found[str(changes)] = str(caught.value).splitlines()
    require_pinned("refused_schedules", found)


def test_standing_mixtures_and_what_a_mixture_reads_are_those_before() -> None:
    tokens = {"web": 1e12, "code": 3e11, "math": 1e10}
    mixed = Mixture({"web": 0.7, "code": 0.3, "math": 0.0})
    schedule = Schedule(
        stages=(
            Stage(name="stable", steps=30, mixture=mixed),
            Stage(name="decay", steps=10, mixture=Mixture({"web": 0.5, "math": 0.5})),
        ),
        sequence_length=16,
        batch_size=4,
    )
    windows = {"web": 400, "code": 12, "math": 20}
    sampler = Sampler(schedule, windows, 3, {"web": 50})
    found = {
        "natural": dict(natural(tokens)),
        "uniform": dict(uniform(tuple(tokens))),
        "unimax": dict(unimax(tokens, budget_tokens=2e12)),
        "blend": dict(mixed.blend({"math": 1.0}, 0.25)),
        "support": list(mixed.support),
        "tokens": schedule.tokens(),
        "epochs": {
            name: value if math.isfinite(value) else "endless"
            for name, value in schedule.epochs({"web": 5000.0, "code": 100.0}).items()
        },
        "slices": simulated_slices(
            schedule, windows, {"web": 1e5, "code": 1e3, "math": 10.0}, 25_600
        ),
        "broken": [
            str(problem)
            for problem in broken_caps(schedule, {"web": 900.0, "code": 1e5}, epoch_cap=1.5)
        ],
        "read": [
            [part.tolist() for part in vars(sampler.locate(np.arange(start, start + 12))).values()]
            for start in (0, 118, 148)
        ],
        "length": len(sampler),
    }
    require_pinned("mixtures", found)


@pytest.mark.parametrize(
    ("epochs", "beyond"), [(4.0, False), (4.0 * (1 + 1e-7), False), (4.0 * (1 + 1e-5), True)]
)
def test_a_cap_is_broken_beyond_rounding_alone(epochs: float, beyond: bool) -> None:
    assert beyond_cap(epochs, 4.0) is beyond


def test_an_audit_is_that_before_and_names_its_worst() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=100, mixture=Mixture({"x": 0.6, "y": 0.4})),),
        sequence_length=8,
        batch_size=8,
    )
    found: dict[str, Any] = {}
    for name, counts in {"good": [[480, 320]], "bad": [[500, 300]], "short": [[240, 160]]}.items():
        made = audit(schedule, np.array(counts), {"x": 1000, "y": 100}, tolerance=1e-3)
        found[name] = [made.ok, made.to_json(), asdict(made.worst)]
    require_pinned("audits", found)


# -------------------------------------------------------------------------------------------- scores


METRICS = {
    "arc/acc": MetricFacts(True, 0.25),
    "hella/acc": MetricFacts(True, 0.2),
    "wiki/bpb": MetricFacts(False),
    "heldout_web/bpb": MetricFacts(False),
}
TERMS: dict[str, dict[str, Any]] = {
    "quiz": {"metrics": "*/acc", "weight": 3.0, "rescale": True},
    "text": {"metrics": "*/bpb"},
    "named": {"metrics": "arc/acc", "weight": 0.5, "direction": "minimize"},
    "nothing": {"metrics": "none/*", "weight": 7.0},
}


def test_forms_of_a_score_are_those_before() -> None:
    values = {"arc/acc": 0.5, "hella/acc": 0.4, "wiki/bpb": 1.1, "heldout_web/bpb": 0.9}
    found: dict[str, Any] = {}
    for direction in ("maximize", "minimize"):
        for without in ((), ("hella/acc",), tuple(METRICS)):
            form = linear_form(TERMS, direction, METRICS, without=without)
            key = f"{direction} {len(without)}"
            found[key] = [dict(form.weights), form.constant, form.value(values)]
    found["removable"] = removable(TERMS, [*METRICS, "other/f1"])
    found["formulas"] = [
        formula(TERMS),
        formula(TERMS, ("wiki/bpb", "arc/acc")),
        formula({"a": {"metrics": "a/b", "weight": 2.0}}),
        formula({}),
    ]
    names = ("a/bpb", "a/acc", "a/perplexity", "b/x/bpb", "unknown")
    found["facts"] = {name: fact.higher_is_better for name, fact in facts_of_names(names).items()}
    require_pinned("score_forms", found)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_score_without_all_its_metrics_is_none(value: float | None) -> None:
    form = LinearForm(weights={"a": 1.0, "b": 2.0}, constant=0.5)
    assert form.value({"a": 1.0, "b": value}) is None
    assert form.value({"a": 1.0, "b": 2.0, "c": None}) == 5.5
    assert LinearForm(weights={}).value({"a": 1.0}) is None


def test_terms_that_match_nothing_or_have_no_chance_are_named() -> None:
    tasks = {
        f"quiz{number}": TaskSpec(
            form="cloze", domain="english", items="quiz", metrics=("acc", "bpb")
        )
        for number in range(8)
    }
    terms = {
        "a": ScoreTerm(metrics="quis1/acc"),
        "b": ScoreTerm(metrics="*/bpb", rescale=True),
        "c": ScoreTerm(metrics="heldout_x/bpb"),
    }
    score = ScoreRule(direction="maximize", terms=terms)
    made = {
        name: EvaluationSpec(tasks=tasks, heldout=heldout, score=score)
        for name, heldout in (("with", True), ("without", False))
    }
    found = {
        name: [str(problem) for problem in score_problems(spec, ("web",))]
        for name, spec in made.items()
    }
    empty = EvaluationSpec(tasks={}, heldout=False)
    found["empty"] = [str(unmatched("x", "a/b", metric_names(empty, ()), empty))]
    require_pinned("unmatched_metrics", found)


# ------------------------------------------------------------------------------------------ overlaps


def test_overlaps_of_made_documents_are_those_before() -> None:
    rng = random.Random(4)
    words = [f"word{number}" for number in range(40)] + ["7", "2,450", "3.5"]
    rows: list[dict[str, Any]] = [
        {
            "id": f"q{number}",
            "question": " ".join(rng.choices(words, k=size)),
            "query": "",
            "choices": ["yes it is so", "no"],
            "gold": number % 2,
        }
        for number, size in enumerate((7, 8, 9, 12, 13, 14, 20, 30, 6, 26))
    ]
    texts = []
    for number in range(60):
        own = rows[number % len(rows)]["question"].split()
        cut = rng.sample(range(len(own)), k=min(len(own), number // 10))
        changed = [word if place not in cut else "other" for place, word in enumerate(own)]
        texts.append(
            (str(number), " ".join([*rng.choices(words, k=30), *changed, "yes it is so", "end"]))
        )
    found: dict[str, Any] = {}
    rules = {
        "default": None,
        "unmasked": OverlapRule(mask_numbers=False),
        "short": OverlapRule(words=5, fewest_words=6, common_share=0.9),
    }
    for name, rule in rules.items():
        index = TaskIndex({"a": rows[:5], "b": rows[5:]}, rule)
        reports = scan(index, texts)
        found[name] = [
            {**asdict(one), "contaminated": sorted(one.contaminated), "share": one.share}
            for one in reports
        ]
        found[f"{name} hits"] = [
            [list(hit) for hit in hits] for hits in index.hits_of_many([t for _, t in texts[:12]])
        ]
    require_pinned("overlaps", found)


def test_an_item_counts_from_the_stated_share_on() -> None:
    """Of 20 words 12 are 60%: enough; 11 are not."""
    question = [f"w{number}" for number in range(20)]
    row = {"id": "q", "question": " ".join(question), "query": "", "choices": ["y"], "gold": 0}
    index = TaskIndex({"t": [row]}, OverlapRule(words=5))
    for kept, found in ((12, True), (11, False)):
        text = " ".join([*question[:kept], *[f"other{number}" for number in range(30)]])
        assert bool(index.hits(text)) is found


# -------------------------------------------------------------------------------------------- runs


def test_names_and_identities_of_runs_have_their_lengths(workspace: Path) -> None:
    config = composed()
    plain = identity(config)
    assert [len(name) for name in plain["stores"].values()] == [16] * len(SOURCES)
    name = trial_name(config, plain)
    assert len(name) == 8
    assert trial_name(composed("seed=5"), identity(composed("seed=5"))) == name
    other = composed("training.peak_lr=0.01")
    assert trial_name(other, identity(other)) != name
    assert trial_name(composed("trial=own"), plain) == "own"
    for key in ("mirror", "batch_tokens"):
        assert key not in plain["evaluation"]
    assert "tail_steps" not in plain["schedule"]["lr"]


def test_a_warm_start_from_no_checkpoint_is_refused_before_anything_is_written(
    workspace: Path,
) -> None:
    config = composed("warm_start.checkpoint=somewhere", "warm_start.first_step=1")
    with pytest.raises(UserError, match=r"warm_start\.checkpoint"):
        make_job(config, make_plan(config), Path("x"))
    with pytest.raises(UserError, match=r"warm_start\.checkpoint"):
        open_work(config)
    assert not list((workspace / "runs").glob("*/*"))
