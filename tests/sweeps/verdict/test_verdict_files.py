"""Check the file of a verdict: what is written, what reads back, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import DamagedError, UserError
from ablations.files import write_sealed
from sweeps.verdict.power import PowerEstimate
from sweeps.verdict.transfer import Transfer
from sweeps.verdict.verdict_record import FORMAT, VERDICT_FILE, read_verdict, write_verdict
from tests.oracles.verdicts import candidate, estimate, picture_row, quality, task_row, verdict

FULL: dict[str, Any] = {
    "tie_kind": "undecided",
    "outcome": "tie",
    "finalists": ("a", "b"),
    "candidates": (candidate("a", weights={"edu": 1.0}), candidate("b", advantage=estimate(1.0))),
    "tasks": (task_row("arc", advantage=estimate(-1.0), items=5, item_error=0.5),),
    "signal": (quality("arc/acc", noise_sd=0.1, warnings=("one", "two")),),
    "transfer": (
        Transfer(
            small="s",
            large="l",
            mixtures=6,
            pairs=15,
            rank_correlation=0.5,
            rank_interval=(0.25, 0.75),
            decision_accuracy=0.5,
            decision_interval=None,
        ),
    ),
    "settle": (
        PowerEstimate(
            effect=1.0,
            power=0.8,
            seeds_now=2,
            seeds_needed=None,
            items_factor=None,
            items_known=False,
            detectable_effect=2.0,
        ),
    ),
    "left_out": {"x": "why"},
    "may_be_best": {"a": True, "b": False},
    "pictures": (picture_row("look", "a"),),
}


def stored(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / VERDICT_FILE).read_text())
    return found


@pytest.mark.parametrize("changes", [{}, FULL])
def test_a_verdict_reads_back_as_it_was_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    one = verdict(**changes)
    assert write_verdict(tmp_path, one) == tmp_path / VERDICT_FILE
    assert read_verdict(tmp_path) == one
    assert stored(tmp_path)["format"] == FORMAT


def test_pictures_are_written_where_there_are_some(tmp_path: Path) -> None:
    write_verdict(tmp_path, verdict())
    assert "pictures" not in stored(tmp_path)
    write_verdict(tmp_path, verdict(**FULL))
    (row,) = stored(tmp_path)["pictures"]
    assert (row["task"], row["candidate"], row["gain"]) == ("look", "a", 0.4)


def test_numbers_that_are_not_finite_are_null_and_read_back_as_unknown(tmp_path: Path) -> None:
    wide = estimate(1.0, standard_error=math.inf, low=-math.inf, high=math.inf, df=math.nan)
    rows = (candidate("base"), candidate("mix", advantage=wide))
    write_verdict(tmp_path, verdict(advantage=wide, candidates=rows))
    row = stored(tmp_path)["advantage"]
    assert [row[key] for key in ("value", "standard_error", "low", "high", "df")] == [1.0] + [
        None
    ] * 4
    assert stored(tmp_path)["candidates"][1]["advantage"] == row
    found = read_verdict(tmp_path).advantage
    assert found.value == 1.0
    assert all(math.isnan(x) for x in (found.standard_error, found.low, found.high, found.df))


@pytest.mark.parametrize(("direction", "difference"), [("maximize", 2.0), ("minimize", -2.0)])
def test_a_difference_is_in_the_direction_of_the_score(direction: str, difference: float) -> None:
    assert verdict(direction=direction).difference == difference


def test_a_pick_is_blind_on_the_tasks_of_the_score_that_it_does_not_look_at() -> None:
    rows = (
        picture_row("a", "mix"),
        picture_row("b", "mix", used=False),
        picture_row("c", "mix", used=False, in_score=False),
        picture_row("b", "base", used=False),
        picture_row("d", "mix", used=False),
    )
    assert [row.task for row in verdict(pictures=rows).blind] == ["b", "d"]


def rewritten(folder: Path, **changes: Any) -> Path:
    """Write a verdict with other values under its checksum; None leaves a key out."""
    write_verdict(folder, verdict(**FULL))
    values = {**stored(folder), **changes}
    kept = {key: value for key, value in values.items() if value != "left out"}
    write_sealed(folder / VERDICT_FILE, kept)
    return folder


def test_a_field_that_is_newer_than_the_record_keeps_its_default(tmp_path: Path) -> None:
    newer = dict.fromkeys(
        ("objective", "question", "disagreements", "answer", "may_be_best", "pictures"), "left out"
    )
    found = read_verdict(rewritten(tmp_path, **newer))
    assert (found.objective, found.question, found.disagreements) == ("score", "", ())
    assert (found.answer, found.may_be_best, found.pictures) == ("", {}, ())
    given = read_verdict(rewritten(tmp_path, objective="loss", question="Why?", answer="So."))
    assert (given.objective, given.question, given.answer) == ("loss", "Why?", "So.")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"pick": "left out"}, "KeyError: 'pick'"),
        ({"regret": "left out"}, "KeyError: 'regret'"),
        ({"regret": {"margin": 0.0}}, "KeyError: 'chance'"),
        ({"candidates": 3}, "TypeError"),
        ({"advantage": None}, "TypeError"),
    ],
)
def test_a_verdict_that_lacks_a_part_is_damaged(
    tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(DamagedError, match=r"not what the platform wrote") as caught:
        read_verdict(rewritten(tmp_path, **changes))
    assert found in str(caught.value)


def test_a_newer_format_is_refused_and_this_one_and_older_ones_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="written by a newer version of the platform") as caught:
        read_verdict(rewritten(tmp_path, format=FORMAT + 1))
    assert f"verdict format {FORMAT + 1}" in str(caught.value)
    assert f"at most {FORMAT}" in str(caught.value)
    assert read_verdict(rewritten(tmp_path, format=FORMAT)).format == FORMAT
    assert read_verdict(rewritten(tmp_path, format=FORMAT - 1)).format == FORMAT - 1


def test_a_record_without_a_format_is_of_this_one(tmp_path: Path) -> None:
    assert read_verdict(rewritten(tmp_path, format="left out")).format == FORMAT


def test_a_study_without_a_verdict_is_told_from_a_study_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "wab").write_text("no folder")
    with pytest.raises(UserError, match="no verdict yet") as caught:
        read_verdict(tmp_path / "web")
    assert "ablate verdict study=web" in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'web'"):
        read_verdict(tmp_path / "wab")


def test_a_link_to_nothing_is_a_damaged_verdict_and_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / VERDICT_FILE).symlink_to(tmp_path / "gone")
    with pytest.raises((UserError, OSError)) as caught:
        read_verdict(tmp_path)
    assert "no verdict yet" not in str(caught.value)
