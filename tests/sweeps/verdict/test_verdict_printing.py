"""Check each line and each cell that a verdict prints, from records with stated numbers."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from sweeps.verdict.decision import Regret
from sweeps.verdict.render import show
from sweeps.verdict.transfer import Transfer
from sweeps.verdict.verdict_record import NoiseRow, Verdict
from tests.oracles.verdicts import candidate, estimate, picture_row, quality, task_row, verdict

SHORT = "verbose=true also prints each task, the noise"


def printed(one: Verdict, *, verbose: bool = False) -> list[str]:
    """Return the printed lines, with one space between words."""
    console = Console(width=200, file=io.StringIO(), color_system=None)
    show(one, console, verbose=verbose)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [" ".join(line.split()) for line in text.splitlines() if line.strip(" ─")]


def regret(**changes: Any) -> Regret:
    plain = {"margin": 0.0, "chance": 0.125, "expected": 0.25, "expected_if_kept": 0.5}
    return Regret(**{**plain, "shrunk_advantage": 1.5, **changes})


def noise(**changes: Any) -> NoiseRow:
    plain: dict[str, Any] = {"source": "seeds", "run_sd": None, "df": 6.0, "item_error": None}
    return NoiseRow(
        **{**plain, "blocked": False, "bootstrap": None, "permutation_p": None, **changes}
    )


def test_a_short_verdict_is_its_sentence_its_regret_and_its_candidates() -> None:
    rows = (
        candidate("mix", mean=2.34567, advantage=estimate(2.0), finalist=True),
        candidate("base", seeds=(7,), mean=0.5),
        candidate(
            "far", seeds=(), mean=-1.0, advantage=estimate(-3.0, low=-math.inf, p_corrected=0)
        ),
    )
    assert printed(verdict(candidates=rows)) == [
        "Take mix.",
        "Chance that mix is worse than base: 12.5%; expected loss 0.25 if taken, 0.5 if not.",
        "candidates (mean of acc, maximize; 95% intervals; p corrected for all",
        "candidates)",
        "candidate seeds score better than base by p may be best",
        "mix 0,1,2,3 2.346 2 (1 to 3) 0.02 yes",
        "base 7 0.5",
        "far -1 -3 < 0.0001",
        f"{SHORT}.",
    ]


def test_mixtures_stand_beside_their_candidates_where_one_has_weights() -> None:
    rows = (candidate("mix", weights={"edu": 0.66667, "web": 0.33333}), candidate("base"))
    lines = printed(verdict(candidates=rows))
    assert "candidate mixture seeds score better than base by p may be best" in lines
    assert "mix edu 0.667 web 0.333 0,1,2,3 0.5" in lines
    assert "base 0,1,2,3 0.5" in lines


def test_what_settles_a_tie_stands_in_the_place_of_the_regret() -> None:
    tie = verdict(outcome="tie", tie_kind="undecided", answer="Any.", settle_text="Add 5 seeds.")
    lines = printed(tie)
    assert lines[:3] == ["Take mix.", "Any.", "Add 5 seeds."]
    assert not any(line.startswith("Chance") for line in lines)
    assert any(line.startswith("Chance that mix is worse") for line in printed(tie, verbose=True))
    full = printed(verdict(), verbose=True)
    assert sum(line.startswith("Chance that mix is worse") for line in full) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"chance": None, "margin": 0.5}, "The chance of regret is not known."),
        (
            {"margin": 0.03},
            "Chance that mix is worse than base by more than 0.03: 12.5%; expected loss 0.25 if taken, "
            "0.5 if not.",
        ),
        ({"expected": None}, "Chance that mix is worse than base: 12.5%."),
        (
            {"chance": 0.0, "expected": 0.0},
            "Chance that mix is worse than base: 0.0%; expected loss 0 if taken, 0.5 if not.",
        ),
    ],
)
def test_the_regret_is_a_chance_and_two_losses(changes: dict[str, Any], line: str) -> None:
    assert printed(verdict(regret=regret(**changes)))[1] == line


@pytest.mark.parametrize(
    ("caveats", "left_out", "noted"),
    [
        ((), {}, ""),
        (("a",), {}, ", 1 caveat"),
        ((), {"x": "why"}, ", 1 caveat"),
        (("a", "b"), {"x": "why"}, ", 3 caveats"),
    ],
)
def test_a_short_verdict_counts_what_it_leaves_unsaid(
    caveats: tuple[str, ...], left_out: dict[str, str], noted: str
) -> None:
    assert printed(verdict(caveats=caveats, left_out=left_out))[-1] == f"{SHORT}{noted}."


TASKS = (
    task_row("small", advantage=estimate(0.5), effect="gains"),
    task_row(
        "large",
        reference=0.1234567891,
        pick=1.2345678912,
        advantage=estimate(1.5),
        effect="gains",
        in_score=False,
    ),
    task_row("low", advantage=estimate(-0.25), effect="pays"),
    task_row("lower", metric="bpb", advantage=estimate(-2.0), effect="pays"),
    task_row("same", advantage=estimate(0.0, p_corrected=1.0), effect="not shown"),
    task_row("gone", reference=None, pick=None),
    task_row("look", advantage=estimate(3.0), effect="blind"),
    task_row("lost", effect="gains"),
)


def test_tasks_are_named_by_effect_the_largest_first() -> None:
    lines = printed(verdict(tasks=TASKS, pictures=(picture_row("look", "mix", used=False),)))
    assert lines[-6:-1] == [
        "Better on: large acc (1.5), small acc (0.5)",
        "Worse on: lower bpb (-2), low acc (-0.25)",
        "No significant difference on 2 of 8 tasks.",
        "A lead without use of the picture on: look",
        "Pictures of look in mix: not used, gain in bits per byte 0.4, at least 0.3; over another "
        "picture 0.2, at least 0.1",
    ]
    assert ": used, gain" in printed(verdict(pictures=(picture_row("look", "mix"),)))[-2]


def test_no_line_speaks_of_tasks_that_are_not_there() -> None:
    words = ("Better on", "Worse on", "No significant", "A lead", "Pictures of")
    assert not [line for line in printed(verdict()) if line.startswith(words)]


def test_a_full_verdict_has_each_task_the_noise_and_the_rule() -> None:
    one = verdict(
        tasks=TASKS,
        caveats=("beware",),
        left_out={"trial-x-0": "failed: broke"},
        noise=noise(
            run_sd=0.01234,
            df=5.678,
            item_error=0.00345,
            bootstrap=(-0.5, 2.5),
            permutation_p=0.00001,
        ),
    )
    lines = printed(one, verbose=True)
    start = lines.index("mix against base, task by task (95% intervals; p corrected for all tasks)")
    assert lines[start + 1 :] == [
        "task base mix better by p difference in score",
        "small acc 0.25 0.75 0.5 (-0.5 to 1.5) 0.02 better yes",
        "large acc 0.1235 1.235 1.5 (0.5 to 2.5) 0.02 better –",
        "low acc 0.25 0.75 -0.25 (-1.25 to 0.75) 0.02 worse yes",
        "lower bpb 0.25 0.75 -2 (-3 to -1) 0.02 worse yes",
        "same acc 0.25 0.75 0 (-1 to 1) 1 not significant yes",
        "gone acc – – unknown yes",
        "look acc 0.25 0.75 3 (2 to 4) 0.02 picture not used yes",
        "lost acc 0.25 0.75 better yes",
        "Noise: from seeds; SD of one run 0.0123 (5.68 degrees of freedom); items add 0.00345; "
        "bootstrap over seeds and items -0.5 to 2.5; permutation p < 0.0001.",
        "- beware",
        "- left out: trial-x-0: failed: broke",
        "Rule: two-sided p.",
    ]
    assert not any(line.startswith(SHORT) for line in lines)


def test_noise_that_is_not_known_has_its_source_alone() -> None:
    lines = printed(verdict(noise=noise(source="none")), verbose=True)
    assert "Noise: from none." in lines


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (
            quality(
                "arc/acc",
                variance_ratio=2.34567,
                monotonicity=0.98765,
                above_chance=3.45678,
                stability=0.87654,
            ),
            "arc/acc 2.35 0.99 3.46 0.88 none",
        ),
        (quality("a/b", monotonicity=0.5, warnings=("one", "two")), "a/b – 0.5 – – one, two"),
        (quality("a/b", variance_ratio=0.0), "a/b 0 – – – none"),
        (quality("a/b", stability=1.0, above_chance=2.0), None),
    ],
)
def test_task_quality_is_printed_where_one_metric_has_a_spread_or_a_trend(
    row: Any, shown: str | None
) -> None:
    lines = printed(verdict(signal=(quality("x/y"), row)), verbose=True)
    title = "task quality (reported; the score is the study's own)"
    assert (title in lines) == (shown is not None)
    if shown is not None:
        at = lines.index(title)
        assert lines[at + 1] == (
            "task mixtures / noise monotone above chance stable ranking warnings"
        )
        assert lines[at + 2 : at + 4] == ["x/y – – – – none", shown]


def test_transfer_is_printed_with_its_intervals_where_they_are_known() -> None:
    rows = (
        Transfer(
            small="15M",
            large="60M",
            mixtures=6,
            pairs=15,
            rank_correlation=0.81234,
            rank_interval=(0.5, 1.0),
            decision_accuracy=0.75,
            decision_interval=(0.6, 0.9),
        ),
        Transfer(
            small="s",
            large="l",
            mixtures=2,
            pairs=1,
            rank_correlation=None,
            rank_interval=None,
            decision_accuracy=1.0,
            decision_interval=None,
        ),
    )
    lines = printed(verdict(transfer=rows), verbose=True)
    at = lines.index("transfer between proxies")
    assert lines[at + 1 : at + 4] == [
        "from to mixtures rank correlation same decision",
        "15M 60M 6 0.812 (0.5 to 1) 0.75 (0.6 to 0.9) of 15 pairs",
        "s l 2 – 1 of 1 pairs",
    ]
    assert "transfer between proxies" not in printed(verdict(), verbose=True)
    assert "transfer between proxies" not in printed(verdict(transfer=rows))


def test_a_verdict_is_short_and_goes_to_the_terminal_unless_it_is_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(verdict())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Take mix."
    assert lines[-1].startswith(SHORT)
