"""Check that items of several runs are aligned, with their groups, and that other items are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablations.errors import UserError
from ablations.record.run_record import RunRecord
from sweeps.verdict.details import item_tables

Values = Mapping[str, Sequence[object]]
Write = Callable[..., RunRecord]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A writer of runs' details: step 5, task → columns."""

    def made(name: str, **tasks: Values) -> RunRecord:
        folder = tmp_path / name / "details" / "5"
        folder.mkdir(parents=True)
        for task, columns in tasks.items():
            pq.write_table(pa.table(dict(columns)), folder / f"{task}.parquet")
        return RunRecord(tmp_path / name)

    return made


def test_values_are_in_the_order_of_the_items_whatever_that_of_the_files(write: Write) -> None:
    first = write(
        "a-0", arc={"item_id": ["z", "x", "y"], "acc": [3.0, 1.0, None], "bpb": [6.0, 4.0, 5.0]}
    )
    second = write(
        "b-0", arc={"item_id": ["y", "z", "x"], "acc": [8.0, 9.0, 7.0], "bpb": [2.0, 3.0, 1.0]}
    )
    wanted = [("arc", "acc"), ("arc", "bpb"), ("arc", "none")]
    found = item_tables([first, second], [5, 5], wanted)
    assert set(found) == {("arc", "acc"), ("arc", "bpb")}
    accuracy = found["arc", "acc"].values.tolist()
    assert math.isnan(accuracy[0][1])
    assert [accuracy[0][0], accuracy[0][2], *accuracy[1]] == [1.0, 3.0, 7.0, 8.0, 9.0]
    assert found["arc", "bpb"].values.tolist() == [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]]
    assert found["arc", "acc"].groups is None


def test_only_tasks_and_metrics_that_every_run_kept_are_read(write: Write) -> None:
    plain = {"item_id": ["x", "y"], "acc": [1.0, 2.0]}
    more = {**plain, "bpb": [3.0, 4.0]}
    first = write("a-0", arc=plain, code=more, math=plain)
    second = write("b-0", arc=plain, code=plain)
    wanted = [("math", "acc"), ("arc", "acc"), ("code", "acc"), ("code", "bpb")]
    found = item_tables([first, second], [5, 5], wanted)
    assert list(found) == [("arc", "acc"), ("code", "acc")]
    assert list(item_tables([first], [5], wanted)) == [
        ("math", "acc"),
        ("arc", "acc"),
        ("code", "acc"),
        ("code", "bpb"),
    ]
    assert item_tables([first, second], [5, None], wanted) == {}


def test_groups_come_from_the_first_run_that_kept_them_and_some_items_stand_alone(
    write: Write,
) -> None:
    ids = ["w", "x", "y", "z"]
    plain = {"item_id": ids, "acc": [1.0, 2.0, 3.0, 4.0]}
    runs = [
        write("a-0", arc=plain),
        write("b-0", arc={**plain, "group": ["p", "q", "p", None]}),
        write("c-0", arc={**plain, "group": ["p", "p", "p", "p"]}),
    ]
    groups = item_tables(runs, [5, 5, 5], [("arc", "acc")])["arc", "acc"].groups
    assert groups is not None
    assert groups.tolist() == [0, 1, 0, 2]
    alone = item_tables(runs[1:2], [5], [("arc", "acc")])["arc", "acc"].groups
    assert alone is not None
    assert alone.tolist() == [0, 1, 0, 2]


def refusals(runs: Sequence[RunRecord], *tasks: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        item_tables(runs, [5] * len(runs), [(task, "acc") for task in tasks])
    return [" ".join(str(problem).split()) for problem in caught.value.problems]


def answered(ids: str) -> Values:
    return {"item_id": list(ids), "acc": [1.0] * len(ids)}


def test_runs_of_other_items_than_most_are_named_with_how_many(write: Write) -> None:
    odd = write("a-0", arc=answered("uvwx"), code=answered("ab"))
    first = write("b-0", arc=answered("xyz"), code=answered("abc"))
    second = write("c-0", arc=answered("zyx"), code=answered("bca"))
    arc, code = refusals([odd, first, second], "arc", "code")
    assert arc == (
        "a-0: did not answer the same items of arc as b-0; found: 2 missing, 3 others; allowed: the 3 items "
        "of b-0; score both again with the same evaluation"
    )
    assert "of code as b-0; found: 1 missing, 0 others;" in code
    assert len(item_tables([first, second], [5, 5], [("arc", "acc"), ("code", "acc")])) == 2


def test_items_that_a_run_answers_twice_are_counted(write: Write) -> None:
    twice = write("a-0", arc=answered("xyzxy"))
    plain = write("b-0", arc=answered("xyz"))
    (text,) = refusals([twice, plain], "arc")
    assert text == "a-0: answers items of arc twice; found: 2 items"
