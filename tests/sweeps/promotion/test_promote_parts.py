"""Check what a promotion writes file by file, and how its folders are numbered."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.files import read_json
from sweeps.promotion import promote as module
from sweeps.promotion.promote import (
    Promoted,
    _provenance,
    _require_names,
    _user,
    _write,
    promote,
)
from tests.sweeps.promotion.conftest import MadeStudy
from tests.sweeps.promotion.test_promote import STAGES, config


def test_a_promotion_of_three_stages_is_written_file_by_file(study: MadeStudy) -> None:
    """16 steps of 512 tokens, of which 60, 30 and 10% are the stages."""
    found = promote(config(STAGES, "++promotion.by=somebody"))
    assert not found.stood
    record = found.record
    steps = [(one["first_step"], one["last_step"], one["tokens"]) for one in record["stages"]]
    assert steps == [(1, 10, 5120), (11, 14, 2048), (15, 16, 1024)]
    assert [one["name"] for one in record["stages"]] == ["stable", "more", "decay"]
    chain = record["chain"]
    assert [(one["first_step"], one["last_step"]) for one in chain] == [(1, 10), (11, 14), (15, 16)]
    files = sorted((found.folder / "nanotron").glob("*.yaml"))
    assert [one["file"] for one in chain] == [path.name for path in files]
    for number, path in enumerate(files, start=1):
        named = f"proxies-demo_full-001: file {number} of 3, for nanotron's branch"
        assert named in path.read_text()
    launch = sorted((found.folder / "launch").iterdir())
    assert launch
    assert {path.stat().st_mode & 0o777 for path in launch} == {0o755}
    assert (found.folder / "card.md").read_text().count("\n") > 10
    stored = read_json(found.folder / "promotion.json")
    assert stored["name"] == "proxies-demo_full-001"
    assert stored["provenance"]["by"] == "somebody"
    assert stored["baseline"] == {"name": "trial-0000", "trial": "trial-0000"}
    for source, one in stored["sources"].items():
        read = sum(
            stage["tokens"] * stage["weights"].get(source, 0.0) for stage in stored["stages"]
        )
        assert one["tokens"] == pytest.approx(read, rel=0.05)
        assert one["epochs"] is not None


def test_a_promotion_of_the_baseline_has_no_other_run_to_beat(study: MadeStudy) -> None:
    found = promote(config("promotion.pick=trial-0000"))
    assert found.record["candidate"]["trial"] == "trial-0000"
    assert "prediction" not in found.record
    assert "baseline" not in found.record
    assert not (found.folder / "conf/experiment/baseline.yaml").exists()


@pytest.mark.parametrize(
    ("study", "name", "where"),
    [
        ("a/b", "full", ["study", "promotion"]),
        ("s", "../x", ["promotion.full.name", "promotion"]),
        ("s", "full", []),
    ],
)
def test_names_that_make_no_folder_are_all_refused(study: str, name: str, where: list[str]) -> None:
    spec: Any = SimpleNamespace(full=SimpleNamespace(name=name))
    if not where:
        _require_names(study, spec)
        return
    with pytest.raises(ConfigError) as raised:
        _require_names(study, spec)
    assert [problem.where for problem in raised.value.problems] == where


def test_a_name_has_room_for_its_number() -> None:
    """The longest study whose folder ``<study>-full-999`` has a name that is short enough."""
    spec: Any = SimpleNamespace(full=SimpleNamespace(name="full"))

    def fits(length: int) -> bool:
        try:
            _require_names("s" * length, spec)
        except ConfigError:
            return False
        return True

    longest = max(length for length in range(1, 300) if fits(length))
    alone = max(length for length in range(1, 300) if not module.folder_problem("x", "s" * length))
    assert alone - longest == len("-full-999")


def written(parent: Path) -> Promoted:
    """Write a promotion of the study ``s`` as ``f`` into ``parent``."""
    spec: Any = SimpleNamespace(out=str(parent), full=SimpleNamespace(name="f"))
    evidence: Any = SimpleNamespace(study="s")
    return _write(spec, {}, None, evidence, (), ())


def numbered(parent: Path, numbers: range) -> None:
    for number in numbers:
        (parent / f"s-f-{number:03d}").mkdir(parents=True)


def test_the_last_number_is_999(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def same(name: Path, last: Path, build: Any) -> dict[str, Any]:
        asked.append((name.name, last.name))
        return {"name": last.name}

    monkeypatch.setattr(module, "same_promotion", same)
    numbered(tmp_path, range(1, 999))
    found = written(tmp_path)
    assert (found.folder.name, found.record, found.stood) == (
        "s-f-998",
        {"name": "s-f-998"},
        True,
    )
    assert asked == [("s-f", "s-f-998")]
    numbered(tmp_path, range(999, 1000))
    with pytest.raises(ConfigError, match="contains 999 promotions of s-f already"):
        written(tmp_path)


def test_provenance_is_of_the_first_run_and_names_who_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_user", lambda: "the account")
    runs = [
        SimpleNamespace(
            name=f"s/trial-0001-{seed}",
            manifest=SimpleNamespace(
                git_commit=f"commit {seed}",
                versions={"torch": str(seed)},
                fingerprint=f"mark {seed}",
                seed=seed,
            ),
        )
        for seed in (3, 4)
    ]
    config = SimpleNamespace(runs_dir=str(tmp_path))
    verdict = SimpleNamespace(runs=["trial-0001-3"])
    evidence: Any = SimpleNamespace(runs=runs, config=config, verdict=verdict)
    named: Any = SimpleNamespace(by="somebody")
    unnamed: Any = SimpleNamespace(by="")
    found = _provenance(named, evidence)
    assert (found["by"], found["git_commit"], found["versions"]) == (
        "somebody",
        "commit 3",
        {"torch": "3"},
    )
    assert found["runs"] == [
        {"name": f"s/trial-0001-{seed}", "fingerprint": f"mark {seed}", "seed": seed}
        for seed in (3, 4)
    ]
    assert found["counted_runs"] == ["trial-0001-3"]
    assert found["runs_dir"] == str(tmp_path)
    assert _provenance(unnamed, evidence)["by"] == "the account"


@pytest.mark.parametrize("error", [OSError, KeyError])
def test_a_user_without_an_account_is_named_by_number(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def none() -> str:
        raise error("no account")

    monkeypatch.setattr(getpass, "getuser", none)
    assert _user() == f"uid {os.getuid()}"


def test_a_study_that_was_not_trained_on_text_is_refused(study: MadeStudy) -> None:
    def refuse(name: str, config: Any) -> None:
        raise ConfigError([]) if name == "" else ValueError(f"{name} is no text")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "require_text", refuse)
        with pytest.raises(ValueError, match="proxies is no text"):
            promote(config())
    with pytest.raises(ConfigError, match="study"):
        promote({**config(), "study": "a/b"})
