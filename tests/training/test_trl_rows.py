"""What a training on rows reads: shares in both units, and the tokens that its loss counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.rows.row_store import RowStore
from ablations.files import read_json_lines
from ablations.mixture.audit import audit_rows
from ablations.training.method import MethodSpec
from ablations.training.trainers import trainer_of
from tests.oracles.chats import make_row_job, prepare_two_kinds, write_base_model


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_two_kinds(tmp_path_factory.mktemp("trl_data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.mark.parametrize("unit", ["samples", "tokens"])
@pytest.mark.parametrize("loss", ["all", "answers"])
def test_shares_are_exact_and_audited_in_both_units(
    stores: dict[str, Path], base: Path, tmp_path: Path, unit: Any, loss: Any
) -> None:
    method = MethodSpec(kind="sft", unit=unit, loss=loss)
    asked = {"short": 0.25, "long": 0.75}
    job = make_row_job(tmp_path / "run", stores, base, weights=asked, method=method, steps=10)
    outcome = trainer_of(job.method).train(job)
    assert outcome.windows is not None
    assert outcome.supervised is not None
    rows, tokens = np.array(outcome.windows), np.array(outcome.supervised)
    assert rows.sum() == 40
    found = audit_rows(job.schedule, rows, tokens, {"short": 60, "long": 80}, unit=unit, longest=48)
    assert found.ok
    counted = rows if unit == "samples" else tokens
    share = counted[0, 0] / counted.sum()
    assert abs(share - 0.25) <= (1 / 40 if unit == "samples" else 48 / tokens.sum())
    assert found.stages[0].realised == pytest.approx(share)
    if loss == "answers":
        assert tokens.sum() < 0.7 * sum(
            int(RowStore.open(stores[name]).lengths(supervised=False).mean() * count)
            for name, count in zip(asked, rows[0].tolist(), strict=True)
        )


def test_an_audit_fails_when_rows_went_astray() -> None:
    from ablations.mixture.mixture import Mixture
    from ablations.mixture.schedule import Schedule, Stage

    stage = Stage(name="main", steps=10, mixture=Mixture({"a": 0.5, "b": 0.5}))
    schedule = Schedule(stages=(stage,), sequence_length=1, batch_size=4)
    rows, tokens = np.array([[18, 22]]), np.array([[900, 1100]])
    for unit, longest in (("samples", 160), ("tokens", 20)):
        found = audit_rows(schedule, rows, tokens, {"a": 50, "b": 50}, unit=unit, longest=longest)
        assert not found.ok
    near = audit_rows(schedule, rows, tokens, {"a": 50, "b": 50}, unit="tokens", longest=160)
    assert near.ok
    assert near.stages[0].realised_other == pytest.approx(18 / 40)


def test_the_loss_of_answers_counts_their_tokens_alone(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    losses = {}
    for loss in ("all", "answers"):
        method = MethodSpec(kind="sft", loss=loss)  # type: ignore[arg-type]
        job = make_row_job(tmp_path / loss, stores, base, method=method, steps=4)
        assert trainer_of(job.method).train(job).status == "done"
        losses[loss] = next(iter(read_json_lines(job.directory / "metrics.jsonl")))["loss"]
    import torch
    from transformers import AutoModelForCausalLM

    from ablations.training.rows.row_feed import RowFeed
    from ablations.training.rows.row_trainer import find_row_start

    job = make_row_job(tmp_path / "none", stores, base, steps=4)
    feed = RowFeed(job, find_row_start(job))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "all/start", dtype=torch.float32)
    for loss, expected in losses.items():
        total, count = 0.0, 0
        for (row,) in feed.read(range(4)):
            ids = torch.from_numpy(row.tokens.astype(np.int64))
            with torch.no_grad():
                logits = model(ids[None]).logits[0]
            nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
            kept = torch.from_numpy(row.mask | (loss == "all"))[1:]
            total, count = total + float(nll[kept].sum()), count + int(kept.sum())
        assert expected == pytest.approx(total / count, rel=1e-5)
