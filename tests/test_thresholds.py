"""Rules at their edges: losses that are judged, folders that are replaced, configs that records may hold."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from ablations.files import LineTail, mend_lines, replace_folder, restore_folder
from ablations.record.checksums import damage, has_checksums
from ablations.training.checkpoints import (
    _set_aside,
    is_referenced,
    reference,
    set_damaged_aside,
)
from ablations.training.loss_monitor import Diverged, Health, Spike
from ablations.training.specs import TrainingSpec
from analysis.frames import Frames
from analysis.frames.config_columns import (
    parameters,
    planned_sources,
    planned_tasks,
    sources_of,
    total_tokens,
    varied_parameters,
)
from analysis.frames.views import main_metric, searched_stage
from analysis.records import command_line
from analysis.study_files import load_verdict
from analysis.synthetic import SyntheticStudy, write_study
from sweeps.verdict.verdict_record import read_verdict
from tests.pinned import require_pinned
from tests.training.test_checkpoints import write_checkpoint

RECORDED = Path(__file__).parent / "analysis/fixtures/runs/demo_ratio"
CALM = [2.0, 2.2] * 50
"""Losses of mean 2.1 and deviation 0.1."""


def rules_of(**changes: Any) -> TrainingSpec:
    """Return the settings of a training with these rules."""
    return TrainingSpec(sequence_length=32, batch_size=8, peak_lr=0.01, **changes)


def spike_after(count: int, loss: float, *, window: int = 64) -> bool:
    """Return whether ``loss`` is a spike after ``count`` calm losses; the limit is five deviations."""
    health = Health(rules_of(spike_window_steps=window, spike_sigmas=5.0), 1000)
    health.recall(CALM[:count])
    return isinstance(health.judge(loss, 0.0), Spike)


@pytest.mark.parametrize(
    ("count", "loss", "spike"),
    [(15, 9.0, False), (16, 9.0, True), (16, 2.62, True), (16, 2.58, False), (64, 2.62, True)],
)
def test_a_spike_needs_sixteen_losses_and_more_than_its_deviations(
    count: int, loss: float, spike: bool
) -> None:
    """With fewer losses a deviation is a guess; a short window is used as soon as it is full."""
    assert spike_after(count, loss) is spike
    assert spike_after(8, 9.0, window=8)
    assert not spike_after(7, 9.0, window=8)


def test_a_flat_loss_has_a_deviation_of_a_hundredth() -> None:
    for loss, spike in ((2.049, False), (2.051, True)):
        health = Health(rules_of(spike_window_steps=32, spike_sigmas=5.0), 1000)
        health.recall([2.0] * 32)
        assert isinstance(health.judge(loss, 0.0), Spike) is spike


def test_a_loss_diverges_after_its_patience_in_a_row() -> None:
    rules = rules_of(diverged_ratio=1.5, diverged_patience_steps=3)
    limit = 1.5 * math.log(100)
    health = Health(rules, 100)
    high = limit + 1.0
    losses = (limit, high, high, limit, high, high, high)
    found = [isinstance(health.judge(loss, 1.0), Diverged) for loss in losses]
    assert found == [False] * 6 + [True]
    for loss, norm in ((math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)):
        assert isinstance(Health(rules, 100).judge(loss, norm), Diverged)


# ------------------------------------------------------------------------------------------- folders


def test_a_tail_reads_from_the_first_byte_and_whole_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = LineTail(path)
    assert tail.read() == []
    path.write_text("a\nb\nc")
    assert tail.read() == ["a", "b"]
    assert tail.read() == []
    with path.open("a") as stream:
        stream.write("d\n")
    assert tail.read() == ["cd"]
    assert LineTail(path, 2).read() == ["b", "cd"]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 9000])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines"
    path.write_text("whole\n" + "x" * length)
    mend_lines(path)
    assert path.read_text() == "whole\n"


def test_a_folder_that_cannot_be_replaced_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nothing", tmp_path / "name")
    assert not list(tmp_path.iterdir())


def test_a_replaced_folder_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder, new = tmp_path / "name", tmp_path / "new"
    for place, text in ((folder, "old"), (new, "new")):
        place.mkdir()
        (place / "file").write_text(text)
    (tmp_path / ".name.old").mkdir()
    replace_folder(new, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert (folder / "file").read_text() == "new"
    folder.rename(tmp_path / ".name.old")
    restore_folder(folder)
    assert (folder / "file").read_text() == "new"


def test_a_damaged_checkpoint_replaces_an_older_damaged_one(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "8").mkdir()
        (tmp_path / "8" / f"of_{number}").write_text("x")
        assert _set_aside(tmp_path / "8") == tmp_path / "damaged-8"
    assert [path.name for path in (tmp_path / "damaged-8").iterdir()] == ["of_2"]


def test_a_checkpoint_knows_whether_a_run_began_from_it(tmp_path: Path) -> None:
    assert not is_referenced(tmp_path)
    reference(tmp_path, tmp_path / "run")
    reference(tmp_path, tmp_path / "run")
    assert is_referenced(tmp_path)


# ------------------------------------------------------------------------------- configs of records

CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "odd": {
        "mixture": {"weights": "searched", "epoch_cap": None},
        "schedule": {"stages": []},
        "source": {"a": "no section"},
        "evaluation": {"tasks": {"quiz": "no section"}},
    },
    "one stage": {
        "mixture": {"weights": {"a": 2.0, "b": 1, "c": True}, "epoch_cap": 2.0},
        "schedule": {"total_tokens": 900, "stages": {"main": None}},
        "source": {"a": {"domain": "english", "tokens_available": 300}, "b": {"tokens": 50}},
    },
    "stages": {
        "mixture": {"weights": {"a": 1.0}, "epoch_cap_exempt": {"b": "published"}},
        "schedule": {
            "stages": {
                "x": {"tokens": 100.0},
                "y": {"tokens": 300.0, "weights": {"b": 0.0, "a": 3.0}},
                "z": {"share": 0.5, "weights": {"b": 0.0}},
            }
        },
        "source": {"a": {"domain": "math"}, "b": {}},
        "evaluation": {
            "tasks": {
                "quiz": {"domain": "english", "form": "cloze", "metrics": ["acc", "bpb"]},
                "bare": {"metrics": None},
            }
        },
        "model": {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "vocab_size": 1000,
            "tie_word_embeddings": False,
        },
    },
}


def test_columns_of_odd_configs_are_those_before() -> None:
    found: dict[str, Any] = {
        name: {
            "sources": [asdict(one) for one in planned_sources(config)],
            "tasks": [asdict(one) for one in planned_tasks(config)],
            "total": total_tokens(config),
            "parameters": parameters(config),
            "known": sorted(sources_of(config)),
        }
        for name, config in CONFIGS.items()
    }
    model = {**CONFIGS["stages"]["model"]}
    for key in ("num_key_value_heads", "tie_word_embeddings"):
        model.pop(key)
    found["plain model"] = {"parameters": parameters({"model": model})}
    trials = [
        ("t0", {"model": {"a": 1, "weights": 3}, "training": {"lr": 0.1, "deep": {"x": 1}}}),
        ("t1", {"model": {"a": 1, "weights": 4}, "training": {"lr": 0.2, "deep": {"x": 1}}}),
        ("t2", {"model": {"a": 1}, "training": {"lr": 0.2}}),
    ]
    found["varied"] = varied_parameters(trials)
    found["commands"] = {
        str(n): command_line(words)
        for n, words in enumerate(([], ["ablate run"], ["ablate run", "a b", "c=1"]))
    }
    require_pinned("odd_configs", found)


def test_views_of_frames_choose_by_what_varies() -> None:
    rows = [
        ("r1", "stable", "a", 0.5),
        ("r1", "stable", "b", 0.5),
        ("r1", "end", "a", 0.4),
        ("r1", "end", "b", 0.6),
        ("r2", "stable", "a", 0.5),
        ("r2", "stable", "b", 0.5),
        ("r2", "end", "a", 0.2),
        ("r2", "end", "b", 0.8),
    ]
    frame = pd.DataFrame(rows, columns=["run", "stage", "source", "weight"])
    for name in ("study", "trial"):
        frame[name] = frame["run"]
    frame["tokens"], frame["seed"] = 10.0, 0
    assert searched_stage(frame) == "end"
    pairs = (("a", "bpb"), ("a", "acc"), ("b", "f1"), ("b", "bpb"), ("c", "own"), ("c", "also"))
    scores = pd.DataFrame(pairs, columns=["task", "metric"])
    assert main_metric(scores, ("acc", "bpb")) == {"a": "acc", "b": "bpb", "c": "also"}


def test_a_stored_verdict_is_old_once_a_run_ended_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    none = [load_verdict(tmp_path, "s", [], mode=mode) for mode in ("none", "stored")]
    assert [one.verdict for one in none] == [None, None]
    assert "No verdict was requested" in none[0].note
    assert "There is no verdict yet" in none[1].note
    shutil.copy(RECORDED / "verdict.json", folder)
    created = read_verdict(folder).created
    for times, fresh in (((), 0), ((created - 1, created), 0), ((created + 1, None, created), 1)):
        runs: Any = [SimpleNamespace(manifest={"finished": time}) for time in times]
        found = load_verdict(tmp_path, "s", runs, mode="auto")
        assert found.origin == "stored"
        assert found.note.startswith("1 run ended after" if fresh else "") is True
        assert bool(found.note) is bool(fresh)
    two: Any = [SimpleNamespace(manifest={"finished": created + n}) for n in (1, 2)]
    assert load_verdict(tmp_path, "s", two, mode="stored").note.startswith("2 runs ended after")


# ------------------------------------------------------------------------------------ lines of records


def test_rows_whose_kinds_disagree_are_read_as_before(tmp_path: Path) -> None:
    """Objects lead over numbers, numbers over flags, flags over texts; other lines are empty rows."""
    write_study(tmp_path, SyntheticStudy(name="s", sources=("a", "b"), trials=2, steps=3))
    lines = [
        '{"step": 1, "tokens": 8, "loss": 2.5, "lr": true}',
        '{"step": 2, "tokens": "many", "loss": "nan", "grad_norm": {"a": 1}}',
        "[1, 2]",
        '{"step": 2, "tokens": 16, "loss": 2.25, "seconds": 1}',
        "",
        "no json",
        '{"step": 3, "tokens": 24, "loss": null, "seconds": 2.5}',
        '{"step": 4, "tokens": 32, "lo',
    ]
    run = sorted((tmp_path / "s").glob("trial-*"))[0]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    frame = Frames.read(tmp_path, "s").metrics
    own = frame[frame["run"] == run.name].drop(columns=["study", "trial", "seed"])
    found = own.to_json(orient="split", index=False, double_precision=9)
    require_pinned("odd_lines", json.loads(found))


def test_a_run_without_a_cost_of_scoring_costs_its_training(tmp_path: Path) -> None:
    alone = SyntheticStudy(name="s", sources=("a", "b"), trials=2, steps=3, confirmed=0, seeds=1)
    write_study(tmp_path, alone)
    (run,) = (tmp_path / "s").glob("trial-0001-*")
    result = json.loads((run / "result.json").read_text())
    result.pop("content_sha256", None)
    result["cost"] = {"train_cpu_seconds": 7.0, "wall_seconds": 9.0}
    (run / "result.json").write_text(json.dumps(result))
    trials = Frames.read(tmp_path, "s").trials.set_index("trial")
    assert trials.loc["trial-0001", "cpu_seconds"] == 7.0
    assert pd.isna(trials.loc["trial-0001", "flops"])
    assert trials.loc["trial-0000", "cpu_seconds"] > 0.0


def test_checksums_that_an_old_checkpoint_gets_leave_its_references_out(tmp_path: Path) -> None:
    """Runs that begin from it later, and those that are deleted, do not damage it."""
    made = write_checkpoint(tmp_path, 8)
    for path in made.glob("checksums.json"):
        path.unlink()
    reference(made, tmp_path / "first")
    assert set_damaged_aside(tmp_path) == {}
    assert has_checksums(made)
    for path in made.rglob("*.json"):
        if str(tmp_path / "first") in path.read_text():
            path.unlink()
    assert damage(made) == []
    reference(made, tmp_path / "second")
    assert damage(made) == []
