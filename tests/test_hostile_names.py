"""A few of the cases of benchmarks/hostile_names.py, and what it recognises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile_cases import cases
from benchmarks.hostile_names import Page, Workplace, page_problems, raw_html, run_written
from benchmarks.hostile_values import CANARIES, NAMES

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("way", ["import: oc.env", "records: script", "promotion: substitution"])
def test_hostile_names_neither_run_nor_read(way: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/hostile_names.py"), f"--only={way}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 ran, 0 read, 0 otherwise wrong" in done.stdout


def test_there_are_sixty_cases_and_every_way_has_the_worst_names() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 60
    for way in (
        "command line, names",
        "config file, labels",
        "import",
        "tables",
        "records",
        "promotion",
    ):
        for kind in ("substitution", "oc.env", "script"):
            assert f"{way}: {kind}" in names
    assert len(list(cases(every=True))) > len(NAMES) * 6


def test_what_runs_and_what_is_read_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "HOME", "CANARY_FILE", *CANARIES):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back afterwards
    place = Workplace(tmp_path)
    place.now.mkdir()
    script = place.now / "submit.sh"
    script.write_text("#SBATCH --wrap=canary\necho $HOSTILE_WORD\necho $(canary)\n")
    problems: list[str] = []
    said = run_written([script], "", place, problems)
    assert place.mark.exists()
    assert CANARIES["HOSTILE_WORD"] in said
    assert problems == ["submit.sh: #SBATCH --wrap=canary"]
    place.mark.unlink()
    run_written([], "next: ablate report study=$(canary)\n", place, problems)
    assert place.mark.exists()


def test_a_page_with_a_script_more_is_recognised() -> None:
    honest = '<p>x</p><script id="figures">{}</script>'
    plain = Page()
    plain.feed(honest)
    assert list(page_problems(honest, plain)) == []
    for hostile in (
        '<p onclick="x">x</p><script id="figures">{}</script>',
        honest + "<script>canary()</script>",
        '<p>x</p><script id="figures">{</script>',
    ):
        assert list(page_problems(hostile, plain))


def test_html_in_markdown_is_recognised() -> None:
    assert raw_html("a <script>x</script>", "<script")
    for safe in (r"a \<script>", "`<script>`", "    <script>", "&lt;script>"):
        assert not raw_html(safe, "<script")
