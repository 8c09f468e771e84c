"""Runs that share their first steps: bits, cost, kills, what is shared and what is not, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.files import read_json
from ablations.mixture.schedule import Schedule
from ablations.record.legs import earlier_legs
from ablations.record.run_record import RunRecord, list_runs
from ablations.training.trunk import first_steps
from ablations.trunks import trunk_costs, trunks_dir
from tests.conftest import SHORT_SOURCES, TINY, Ablate

EQUAL = "{synthetic_facts:0.4,synthetic_arithmetic:0.4,synthetic_junk:0.2}"
RUN = (
    "run",
    *TINY,
    *SHORT_SOURCES,
    "~schedule.stages.main",
    f"+schedule.stages.first={{share:0.625,weights:{EQUAL}}}",
    "+schedule.stages.last={share:0.375}",
    "schedule.lr.decay_share=last",
)
"""Eight steps; the last three decay, and read the mixture of the run."""

TRUNK = "execution.trunk_tokens=1280"


def arm(facts: float) -> list[str]:
    weights = {"synthetic_facts": facts, "synthetic_arithmetic": 1 - facts, "synthetic_junk": 0}
    return [f"mixture.weights.{name}={weight}" for name, weight in weights.items()]


def kept(record: RunRecord) -> dict[str, Any]:
    """Return all that a run measured, without its cost and times."""

    def timeless(content: Any) -> Any:
        if isinstance(content, dict):
            out = ("cost", "trunk", "cpu_seconds", "content_sha256")
            return {key: timeless(value) for key, value in content.items() if key not in out}
        return content

    tensors = {}
    for path in sorted((record.path / "checkpoints/8").rglob("*.safetensors")):
        content = path.read_bytes()  # safetensors writes the metadata of the header in any order
        tensors[str(path.relative_to(record.path))] = content[
            8 + int.from_bytes(content[:8], "little") :
        ]
    return {
        "result": timeless(record.result()),
        "scores": [timeless(row) for row in record.scores()],
        "losses": [(row["step"], row["loss"], row["grad_norm"]) for row in record.metrics()],
        "audit": record.audit(),
        "weights": tensors,
        "windows": read_json(record.path / "checkpoints/8/state.json")["windows"],
        "identity": record.manifest.fingerprint,
    }


@pytest.mark.slow
def test_runs_that_share_a_trunk_are_those_trained_alone(workspace: Path, ablate: Ablate) -> None:
    for name, facts in (("a", 0.9), ("b", 0.2)):
        assert ablate(*RUN, *arm(facts), f"trial={name}", "runs_dir=alone").code == 0
        answer = ablate(*RUN, *arm(facts), f"trial={name}", TRUNK)
        assert answer.code == 0, answer.err
    alone = {record.name: record for record in list_runs(workspace / "alone")}
    shared = {record.name: record for record in list_runs(workspace / "runs")}
    assert sorted(shared) == sorted(alone), "a trunk is no run of the study"
    assert {n: kept(r) for n, r in shared.items()} == {n: kept(r) for n, r in alone.items()}
    (trunk,) = trunks_dir(workspace / "runs/synthetic").iterdir()
    assert [e["kind"] for e in RunRecord(trunk).events()].count("start") == 1, "trained once"
    whole = next(iter(alone.values())).result()
    assert whole is not None
    for record in shared.values():
        result = record.result()
        assert result is not None
        assert result["trunk"] == {"name": trunk.name, "step": 5, "tokens": 1280}
        assert result["cost"]["flops"] == pytest.approx(whole["cost"]["flops"] * 3 / 8)
        steps = sum(row["seconds"] for row in record.metrics())
        assert earlier_legs(record).wall_seconds < steps, "the trunk's time is not the run's"
    (cost,) = trunk_costs(workspace / "runs/synthetic")
    assert (cost.name, cost.step, cost.tokens) == (trunk.name, 5, 1280.0)
    assert cost.flops == pytest.approx(whole["cost"]["flops"] * 5 / 8)
    assert cost.wall_seconds > 0.0


@pytest.mark.slow
def test_another_seed_model_or_first_stage_has_a_trunk_of_its_own(
    workspace: Path, ablate: Ablate
) -> None:
    for number, change in enumerate(
        (
            ["seed=0"],
            ["seed=1"],
            ["model.hidden_size=48"],
            ["schedule.stages.first.weights.synthetic_junk=0", "mixture.normalize=true"],
            ["schedule.lr.warmup_share=0.25"],
        )
    ):
        answer = ablate(*RUN, *arm(0.5), f"trial=t{number}", TRUNK, *change, "evaluation=synthetic")
        assert answer.code == 0, answer.err
    assert len(list(trunks_dir(workspace / "runs/synthetic").iterdir())) == 5


@pytest.mark.slow
def test_a_killed_adoption_and_a_killed_trunk_are_continued(
    workspace: Path, ablate: Ablate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(*RUN, *arm(0.9), "trial=a", "runs_dir=alone").code == 0
    assert ablate(*RUN, *arm(0.2), "trial=b", TRUNK).code == 0
    (trunk,) = trunks_dir(workspace / "runs/synthetic").iterdir()
    # As after a kill between the trunk's last checkpoint and its record: nothing is trained again.
    (trunk / "trunk.json").unlink()
    for name in (
        "Logbook.event",
        "_copy_checkpoint",
    ):  # the process dies in this step of the adoption
        with monkeypatch.context() as patched:
            patched.setattr(f"ablations.training.trunk.{name}", _die)
            assert ablate(*RUN, *arm(0.9), "trial=a", TRUNK).code == 130
    assert ablate(*RUN, *arm(0.9), "trial=a", TRUNK).code == 0
    assert [e["kind"] for e in RunRecord(trunk).events()].count("start") == 1
    (whole,) = list_runs(workspace / "alone")
    record = RunRecord(workspace / "runs/synthetic/a-0")
    assert kept(record) == kept(whole)
    assert [e["kind"] for e in record.events()].count("trunk") == 1
    rows = (record.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 9)), "each row once"


@pytest.mark.slow
def test_a_damaged_trunk_is_trained_again(workspace: Path, ablate: Ablate) -> None:
    assert ablate(*RUN, *arm(0.9), "trial=a", "runs_dir=alone").code == 0
    assert ablate(*RUN, *arm(0.2), "trial=b", TRUNK).code == 0
    (trunk,) = trunks_dir(workspace / "runs/synthetic").iterdir()
    weights = next((trunk / "checkpoints/5/model").rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()  # the other run links to the same file
    weights.write_bytes(content)
    answer = ablate(*RUN, *arm(0.9), "trial=a", TRUNK)
    assert answer.code == 0, answer.err
    (whole,) = list_runs(workspace / "alone")
    assert kept(RunRecord(workspace / "runs/synthetic/a-0")) == kept(whole)
    assert (trunk / "checkpoints/damaged-5").is_dir()


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_trunk_that_diverges_leaves_each_run_to_itself(workspace: Path, ablate: Ablate) -> None:
    wild = (*RUN, *arm(0.9), "training.diverged_ratio=0.01", "training.diverged_patience_steps=2")
    for name in ("a", "b"):
        answer = ablate(*wild, f"trial={name}", TRUNK)
        assert answer.code == 1, answer.out
        assert "for 2 steps in a row" in answer.err
    (trunk,) = trunks_dir(workspace / "runs/synthetic").iterdir()
    assert read_json(trunk / "trunk.json")["status"] == "failed"
    for record in list_runs(workspace / "runs"):
        kinds = [event["kind"] for event in record.events()]
        assert "diverged" in kinds, "under its own name, so that the study does not try it again"
        assert "trunk" not in kinds


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(["execution.trunk_tokens=1536"], "not on the plateau", id="decay"),
        pytest.param(["execution.trunk_tokens=2048"], "not on the plateau", id="the end"),
        pytest.param([TRUNK, "schedule.lr.warmup_steps=6"], "warm-up", id="warm-up"),
        pytest.param([TRUNK, "execution.stop_tokens=1024"], "after the pause", id="pause"),
        pytest.param(["execution.trunk_tokens=0"], "execution.trunk_tokens", id="zero"),
    ],
)
def test_a_trunk_that_cannot_be_shared_is_refused(
    workspace: Path, ablate: Ablate, overrides: list[str], message: str
) -> None:
    answer = ablate(*RUN, *overrides)
    assert answer.code == 2, answer.out
    assert message in answer.err
    assert not (workspace / "runs").exists()


def test_the_first_steps_of_a_schedule_cut_its_last_stage(two_stages: Schedule) -> None:
    first, second = two_stages.stages
    assert first_steps(two_stages, 3).stages == (replace(first, steps=3),)
    assert first_steps(two_stages, first.steps).stages == (first,)
    assert first_steps(two_stages, first.steps + 1).stages == (first, replace(second, steps=1))
    assert first_steps(two_stages, two_stages.total_steps) == two_stages


@pytest.fixture
def two_stages() -> Schedule:
    from ablations.mixture.mixture import Mixture
    from ablations.mixture.schedule import Stage

    stages = (
        Stage(name="a", steps=5, mixture=Mixture({"web": 1.0})),
        Stage(name="b", steps=3, mixture=Mixture({"web": 0.5, "math": 0.5})),
    )
    return Schedule(stages=stages, sequence_length=8, batch_size=2)
