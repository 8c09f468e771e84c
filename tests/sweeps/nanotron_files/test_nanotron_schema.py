"""Compare our sections and files with the recorded classes of nanotron and with its own loader."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations.errors import ConfigError
from benchmarks.record_nanotron_schema import record
from sweeps.nanotron_files import check, load_yaml, read, recorded_schema, to_document
from sweeps.nanotron_files.import_published import import_file, write_import
from sweeps.nanotron_files.learning_rates import decay_window
from sweeps.nanotron_files.minimal_yaml import OWNERS, text_of, with_defaults
from sweeps.nanotron_files.model_sections import Qwen2Model
from sweeps.nanotron_files.recorded_schema import BRANCHES, REQUIRED, Branch, recorded
from sweeps.nanotron_files.run_sections import Parallelism
from sweeps.nanotron_files.write_back import Specs, text_back, write_back

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "golden" / "promotion"
SHARED = TESTS.parents[1] / "shared"
CASES = SHARED / "cases" / "nanotron_files"
WRITTEN = sorted([*GOLDEN.glob("chain_*/*.yaml"), GOLDEN / "context_8k.yaml"])
PUBLISHED = sorted((GOLDEN / "published").glob("*.yaml"))
RECORDED = Path(recorded_schema.__file__).parent / "recorded"
SOURCE = os.environ.get("NANOTRON_SOURCE")

ASKED_AGAIN = {("LRSchedulerArgs", "lr_warmup_style")}
"""Fields whose default nanotron's own check refuses, so that a file must contain them."""


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("section", OWNERS, ids=lambda section: section.__name__)
def test_a_section_has_the_fields_of_nanotrons_class_and_their_defaults(
    section: type[Any], branch: Branch
) -> None:
    facts, owner = recorded(branch), OWNERS[section]
    ours = {field.name: field for field in dataclasses.fields(section)}
    if owner != "Starcoder2Config":  # read for completeness; further keys pass through
        assert set(facts.classes[owner]) <= set(ours)
    for name, field in ours.items():
        if name not in facts.classes[owner]:
            assert any(name in recorded(other).classes[owner] for other in BRANCHES), name
            continue
        theirs = facts.default(owner, name)
        if field.default is dataclasses.MISSING:
            needed = (
                owner == "Config" or (owner, name) in ASKED_AGAIN or name == "is_starcoder2_config"
            )
            assert needed or theirs is REQUIRED, name
        elif field.default is None and not facts.nullable(owner, name):
            pass  # unset: the branch's own default is used
        else:
            assert field.default == theirs, name


def test_the_kernels_of_qwen_are_those_of_the_branch_unless_set() -> None:
    unset = Qwen2Model()
    assert with_defaults(unset, "main")._fused_rms_norm is True
    assert with_defaults(unset, "smollm3")._fused_rms_norm is False
    assert "_fused_rms_norm" not in to_document(unset)
    given = Qwen2Model(_fused_rms_norm=False)
    assert to_document(given)["_fused_rms_norm"] is False
    assert "_fused_rms_norm" not in to_document(given, branch="smollm3")


def test_a_key_in_use_is_never_left_out_for_a_branch_that_lacks_it() -> None:
    used = Parallelism(dp=1, pp=1, tp=1, moe_layer_recompute=True)
    assert to_document(used, branch="smollm3")["moe_layer_recompute"] is True
    with pytest.raises(ConfigError, match="main has no such key"):
        to_document(used, branch="main")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared")
def test_the_record_of_main_equals_the_shared_one() -> None:
    shared = json.loads((SHARED / "data" / "nanotron_main_schema.json").read_text())
    ours = json.loads((RECORDED / "main.json").read_text())
    assert ours["classes"] == shared["classes"]
    assert ours["commit"] in shared["source"]


def test_the_record_is_made_from_a_checkout_without_importing_it(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "nanotron" / "config"
    folder.mkdir(parents=True)
    for name in ("config.py", "parallelism_config.py", "lighteval_config.py"):
        (folder / name).write_text("raise SystemExit\n")
    (folder / "models_config.py").write_text(
        'KERNEL = "flash"\n\n@dataclass\nclass Shape:\n'
        "    width: int\n    kernel: Optional[str] = KERNEL\n\nclass Other:\n    x: int = 1\n"
    )
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "made"]):
        subprocess.run([*git, *command], check=True)
    made = record(tmp_path, "main")
    assert made["constants"] == {"KERNEL": "flash"}
    assert list(made["classes"]) == ["Shape"]
    assert made["classes"]["Shape"]["fields"] == {
        "width": {"type": "int"},
        "kernel": {"type": "Optional[str]", "default": "KERNEL"},
    }
    assert len(made["commit"]) == 40


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_written_file_has_the_keys_of_the_branch_alone(path: Path, branch: Branch) -> None:
    document = load_yaml(path.read_text())
    assert check(document, branch) == []
    assert f"# Checked against huggingface/{recorded('main')}." in path.read_text()
    assert "moe_layer_recompute" not in path.read_text()


def test_a_written_file_contains_no_default_that_was_not_set() -> None:
    document = load_yaml(WRITTEN[0].read_text())
    facts = recorded("main")
    assert set(document["parallelism"]) == {
        *("dp", "pp", "tp", "pp_engine", "tp_mode", "tp_linear_async_communication")
    }
    for name, value in document["tokens"].items():
        assert facts.default("TokensArgs", name) != value


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("parallelism", "moe_layer_recompute", True, "nanotron=smollm3"),
        ("parallelism", "recompute_layer", None, "cannot be null"),
        ("model", "make_vocab_size_divisible_by", None, "cannot be null"),
        ("lighteval", "no_such", 1, "no such key"),
    ],
)
def test_each_problem_of_the_strict_loader_is_reported(
    section: str, key: str, value: object, message: str
) -> None:
    document = load_yaml((GOLDEN / "published" / "two_stages.yaml").read_text())
    document[section] = {**(document.get(section) or {}), key: value}
    problems = check(document)
    assert [p for p in problems if p.where == f"{section}.{key}" and message in str(p)], problems


def test_a_key_of_another_branch_is_left_out_where_it_changes_nothing(tmp_path: Path) -> None:
    text = (GOLDEN / "published" / "two_stages.yaml").read_text()
    for value, written in (("false", True), ("true", False)):
        path = tmp_path / f"{value}.yaml"
        path.write_text(text.replace("  dp: ", f"  moe_layer_recompute: {value}\n  dp: "))
        if not written:
            with pytest.raises(ValueError, match="moe_layer_recompute"):
                import_file(path, "x")
            branch: Branch = "smollm3"
            imported = import_file(path, "x", branch)
            back = text_back(Specs.of_plain(imported.configs, "x"), imported.sidecar)
            assert "moe_layer_recompute: true" in back
            continue
        imported = import_file(path, "x")
        assert imported.oddities[0].kind == "other_branch"
        back = text_back(Specs.of_plain(imported.configs, "x"), imported.sidecar)
        assert "moe_layer_recompute" not in back


def test_a_default_of_one_branch_is_written_for_the_other(tmp_path: Path) -> None:
    imported = import_file(GOLDEN / "published" / "no_weights.yaml", "x", "smollm3")
    specs = Specs.of_plain(imported.configs, "x")
    assert "_fused_rms_norm" not in text_back(specs, imported.sidecar)
    for_main = text_of(write_back(specs, imported.sidecar), read=imported.sidecar["document"])
    assert "_fused_rms_norm: false" in for_main


def loaded(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the output of nanotron's own loader for each file."""
    tool = TESTS / "tools" / "nanotron_loader.py"
    done = subprocess.run(
        [sys.executable, str(tool), str(SOURCE), *map(str, paths)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def imported_back(paths: list[Path], out: Path) -> list[Path]:
    """Import each file and return the files written back."""
    found = []
    for number, path in enumerate(paths):
        folder = write_import(import_file(path, "imported"), out / str(number))
        found.append(folder / "imported.nanotron.yaml")
    return found


@pytest.mark.skipif(SOURCE is None, reason="NANOTRON_SOURCE names no checkout of nanotron")
def test_nanotrons_own_loader_takes_every_file_that_is_written(tmp_path: Path) -> None:
    shared = sorted((SHARED / "data" / "nanotron_configs").glob("*.yaml"))
    back = imported_back([*PUBLISHED, *shared], tmp_path)
    answers = loaded([*WRITTEN, *back])
    assert len(answers) == len(WRITTEN) + len(back)
    assert [answer for answer in answers if answer["error"]] == []


@pytest.mark.skipif(SOURCE is None, reason="NANOTRON_SOURCE names no checkout of nanotron")
def test_the_decay_lies_where_nanotrons_own_scheduler_has_it(tmp_path: Path) -> None:
    base = (GOLDEN / "published" / "two_stages.yaml").read_text()
    paths = []
    for number, (start, steps) in enumerate([(61, None), (20, 30), (None, 40), (61, 40)]):
        given = {"lr_decay_starting_step": start, "lr_decay_steps": steps}
        document = load_yaml(base)
        document["optimizer"]["learning_rate_scheduler"] |= given
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(document))
    for path, answer in zip(paths, loaded(paths), strict=True):
        file = read(path)
        start, steps = decay_window(file.optimizer.learning_rate_scheduler, 100)
        rate = answer["rate_of_scheduler"]
        assert rate[start] == pytest.approx(1.0)
        assert rate[start + 1] < 1.0
        if start + steps <= 100:
            assert rate[start + steps] == pytest.approx(0.0, abs=1e-12)
            assert rate[start + steps - 1] > 0.0
