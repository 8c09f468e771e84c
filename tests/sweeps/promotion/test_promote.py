"""Whole promotions: gates, folder, configs that run, chain that loads; never overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import load
from ablations.errors import UserError
from ablations.record.run_record import list_runs
from sweeps.nanotron_files import handover_problems, read
from sweeps.promotion.promote import promote
from tests.conftest import Ablate
from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, MadeStudy, composed

STAGES = (
    "promotion.full.stages={stable: {share: 0.6}, more: {share: 0.3, add: {synthetic_arithmetic: "
    "0.2}}, decay: {share: 0.1, add: {synthetic_facts: 0.5}}}"
)


def config(*overrides: str) -> dict[str, Any]:
    values = composed(*FULL, *overrides, config="promote")
    values.pop("compare")
    return values


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_winner_is_promoted_with_its_evidence(study: MadeStudy) -> None:
    promoted = promote(config(STAGES))
    assert promoted.folder.name == "proxies-demo_full-001"
    record = read_json(promoted.folder / "promotion.json")
    assert record["candidate"]["trial"] == "trial-0001"
    assert [gate["state"] for gate in record["gates"]] == [
        "passed",  # beats the baseline
        "passed",  # epoch caps
        "passed",  # audit
        "passed",  # contamination
        "not run",  # second proxy
        "passed",  # token counts
        "passed",  # one tokenizer
        "not run",  # surrogate evidence: nothing is picked by a surrogate
    ]
    assert len(record["provenance"]["runs"]) == 3
    assert record["provenance"]["by"]
    assert read_json(promoted.folder / "evidence" / "verdict.json")["outcome"] == "winner"
    card = (promoted.folder / "card.md").read_text()
    assert record["verdict"]["sentence"] in card
    assert "| beats baseline | passed |" in card
    assert "MFU" in card


def test_stages_keep_their_shares_of_the_full_budget(study: MadeStudy) -> None:
    record = promote(config(STAGES)).record
    steps = [stage["last_step"] - stage["first_step"] + 1 for stage in record["stages"]]
    assert steps == [10, 4, 2]  # 60, 30, 10% of 16 steps of 512 tokens
    first, _, last = (stage["weights"] for stage in record["stages"])
    assert first == pytest.approx(GOOD)
    assert last["synthetic_facts"] == pytest.approx(0.5 + 0.5 * GOOD["synthetic_facts"])


def test_the_chain_loads_and_hands_over(study: MadeStudy) -> None:
    promoted = promote(config(STAGES))
    files = [read(path) for path in sorted((promoted.folder / "nanotron").glob("*.yaml"))]
    assert [len(file.data_stages) for file in files] == [1, 2, 3]
    assert handover_problems(files) == []
    assert files[-1].tokens.train_steps == 16


def test_the_promoted_config_is_a_run(study: MadeStudy) -> None:
    promoted = promote(config(STAGES))
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.config.schema import conf_dir

    GlobalHydra.instance().clear()
    path = f"hydra.searchpath=[file://{promoted.folder / 'conf'}]"
    for experiment, expected in (("promoted", GOOD), ("baseline", PLAIN)):
        with initialize_config_dir(str(conf_dir())):
            found = compose("run", overrides=[path, f"experiment={experiment}"])
        plain = OmegaConf.to_container(found, resolve=True)
        assert isinstance(plain, dict)
        run = load({str(key): value for key, value in plain.items()}, [promoted.folder / "conf"])
        schedule = run.build_schedule()
        assert [stage.steps for stage in schedule.stages] == [10, 4, 2]
        assert schedule.stages[0].mixture == pytest.approx(expected)
        assert run.study == promoted.folder.name
        assert run.build_learning_rate(schedule).decay_steps == 2


def test_the_same_promotion_again_returns_the_existing_one(study: MadeStudy) -> None:
    first = promote(config())
    (first.folder / "comparison.md").write_text("a comparison")
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    again = promote(config())
    assert (first.stood, again.stood) == (False, True)
    assert again.folder == first.folder
    assert again.record["provenance"] == first.record["provenance"]
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]


def test_leftovers_of_a_killed_promotion_are_removed(study: MadeStudy) -> None:
    left = Path("promotions/.proxies-demo_full.4711.tmp/conf")
    left.mkdir(parents=True)
    promote(config())
    assert [path.name for path in Path("promotions").iterdir()] == ["proxies-demo_full-001"]


@pytest.mark.parametrize("change", ["training.peak_lr=0.002", "promotion.full.total_tokens=4096"])
def test_another_promotion_is_a_new_folder(study: MadeStudy, change: str) -> None:
    first = promote(config())
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    second = promote(config(change))
    assert second.folder.name == "proxies-demo_full-002"
    assert {path: path.read_bytes() for path in before} == before
    left = sorted(path.name for path in first.folder.parent.iterdir())
    assert left == ["proxies-demo_full-001", "proxies-demo_full-002"]


def test_a_tie_stops_the_promotion_and_writes_nothing(workspace: Path) -> None:
    made = MadeStudy(workspace / "runs")
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD)
    made.judge()
    with pytest.raises(UserError, match="gate beats_baseline"):
        promote(config("promotion.pick=trial-0001"))
    assert not (workspace / "promotions").exists()


def test_an_override_goes_on_and_is_recorded(workspace: Path) -> None:
    made = MadeStudy(workspace / "runs")
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD)
    made.judge()
    reason = "promotion.override.beats_baseline='a trade-off that the team wants'"
    promoted = promote(config("promotion.pick=trial-0001", f"++{reason}"))
    gate = promoted.record["gates"][0]
    assert gate["state"] == "failed"
    assert gate["override"] == "a trade-off that the team wants"
    card = (promoted.folder / "card.md").read_text()
    assert "**overridden**" in card
    assert "a trade-off that the team wants" in card
    assert any("beats_baseline" in item for item in promoted.record["watch"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++promotion.override.beats_baseline=yes", "needs its reason"),
        ("++promotion.override.beats_bseline='a long enough reason'", "no such gate"),
        ("promotion.pick=trial-0007", "unknown candidate"),
        ("study=none_such", "unknown study"),
        ("++promotion.full.cluster.tp=3", "do not divide"),
    ],
)
def test_mistakes_are_reported(study: MadeStudy, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        promote(config(override))


def test_a_baseline_without_finished_runs_cannot_be_promoted(study: MadeStudy) -> None:
    runs = [
        run for run in list_runs(study.runs_dir, "proxies") if run.manifest.trial == "trial-0000"
    ]
    assert {run.status for run in runs} == {"done"}
    for run in runs:
        run.set_status("failed")
    with pytest.raises(UserError, match="no finished run"):
        promote(config("promotion.pick=trial-0000"))


def test_the_command_promotes_and_prints_the_next_command(study: MadeStudy, ablate: Ablate) -> None:
    answer = ablate("promote", *FULL)
    assert answer.code == 0, answer.err
    assert "experiment=promoted" in answer.out
    assert "passed" in answer.out
    refused = ablate("promote", *FULL, "mixture.epoch_cap=4.0", "promotion.full.total_tokens=1e9")
    assert refused.code == 2
    assert "gate epoch_caps" in refused.err
