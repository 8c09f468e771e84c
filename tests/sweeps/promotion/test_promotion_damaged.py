"""Damage one file that a promotion read or wrote: every change of a result is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.errors import DamagedError, UserError
from ablations.record.run_record import list_runs
from sweeps.exporters.origin import plan_of_promotion
from sweeps.promotion.compare import compare
from sweeps.promotion.promote import promote
from sweeps.promotion.promotion_inputs import picked_runs
from sweeps.verdict.verdict_record import read_verdict
from tests.conftest import Ablate
from tests.sweeps.promotion.conftest import FULL, MadeStudy, composed


def promoted() -> Path:
    plain = composed(*FULL, config="promote")
    del plain["compare"]
    return promote(plain).folder


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", ["verdict.json", "trial-0001-0/result.json"])
def test_a_changed_number_under_a_promotion_is_refused_by_its_file(
    study: MadeStudy, name: str
) -> None:
    path = study.runs_dir / study.study / name
    changed(
        path,
        '"score": ' if "result" in name else '"alpha": 0',
        '"score": 1' if "result" in name else '"alpha": 1',
    )
    with pytest.raises(DamagedError, match=name):
        promoted()


@pytest.mark.parametrize("name", ["result.json", "audit.json", "scores.jsonl", "manifest.json"])
def test_a_run_that_lost_a_file_is_not_promoted_without_it(study: MadeStudy, name: str) -> None:
    verdict = read_verdict(study.runs_dir / study.study)
    row = next(row for row in verdict.candidates if row.trial == "trial-0001")
    runs = picked_runs(study.runs_dir, study.study, row)
    assert len(runs) == 3
    if name == "scores.jsonl":
        runs[0].write_result({**(runs[0].result() or {}), "scored": 3})
    (runs[0].path / name).unlink()
    with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
        picked_runs(study.runs_dir, study.study, row)


def test_a_changed_promotion_is_refused_and_an_older_one_is_read(study: MadeStudy) -> None:
    folder = promoted()
    path = folder / "promotion.json"
    plain = json.loads(path.read_text())
    changed(path, '"high"', '"hugh"')
    with pytest.raises(DamagedError, match=r"promotion\.json: damaged"):
        compare(folder, study.runs_dir)
    del plain["content_sha256"]
    path.write_text(json.dumps(plain))
    with pytest.raises(UserError, match="the full run has not finished"):
        compare(folder, study.runs_dir)


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "missing"])
def test_a_frozen_config_that_changed_starts_no_run_and_no_export(
    study: MadeStudy, ablate: Ablate, gone: bool
) -> None:
    folder = promoted()
    command = ["run", "--config-dir", str(folder / "conf"), "experiment=promoted"]
    path = folder / "conf/mixture/baseline.yaml" if gone else folder / "conf/training/promoted.yaml"
    if gone:
        path.unlink()
    else:
        changed(path, "peak_lr: 0.", "peak_lr: 9.")
    before = len(list_runs(study.runs_dir))
    answer = ablate(*command, "execution.threads=1")
    assert answer.code == 2
    assert path.name in answer.err
    assert "promote again" in answer.err
    assert len(list_runs(study.runs_dir)) == before
    with pytest.raises(DamagedError, match=path.name):
        plan_of_promotion(folder, "data")


def test_a_promotion_without_checksums_is_read_as_before(study: MadeStudy) -> None:
    folder = promoted()
    whole = plan_of_promotion(folder, "data")
    (folder / "conf/checksums.json").unlink()
    assert plan_of_promotion(folder, "data") == whole
