"""Name the next step after a verdict by the method of its study; promote mixtures of text alone."""

from __future__ import annotations

import pytest

from ablations.errors import ConfigError
from sweeps.promotion.by_method import method_of, next_command, require_text


def test_a_study_of_text_is_promoted_and_one_after_it_is_a_stage() -> None:
    assert method_of({}) == "pretrain"
    assert next_command("study=a runs_dir=r", "a", "pretrain") == (
        "ablate promote study=a runs_dir=r full=…"
    )
    after = "ablate promote study=… full=… +promotion.after.dpo.study=a"
    assert next_command("study=a", "a", "dpo") == after
    assert next_command("study=a", "a", "vlm") is None
    require_text("a", {"method": {"kind": "pretrain"}})


@pytest.mark.parametrize(
    ("method", "do"),
    [("sft", r"\+promotion\.after\.sft\.study=a"), ("vlm", "train the pick: ablate run")],
)
def test_a_promotion_of_rows_is_refused_with_what_to_do(method: str, do: str) -> None:
    with pytest.raises(ConfigError, match=rf"found: method={method}; .*{do}"):
        require_text("a", {"method": {"kind": method}})
