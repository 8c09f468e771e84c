"""Runs of the GPU scripts on a CPU, so that they work when a GPU is available."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.utils import canonicalize_name

from ablations.files import read_json_lines
from ablations.training.memory import memory_of
from ablations.training.placement import fit, indexed
from benchmarks import gpu_bundle, gpu_check, gpu_common, gpu_figures
from tests.oracles.jobs import TINY, make_job
from tests.oracles.plain import PlainLlama

ROOT = Path(__file__).resolve().parents[2]
TURNS = ("--steps", "1", "--rounds", "1")


def script(name: str, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines_of(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the JSON lines of a script by their measurement."""
    return {row["what"]: row for row in read_json_lines(folder / f"{name}.jsonl")}


@pytest.mark.slow
def test_the_check_passes_what_a_cpu_can_show_and_skips_the_rest(tmp_path: Path) -> None:
    names = ("flash_kernel", "masking", "resume", "export", "scoring", "study", "sft", "dpo")
    checks = ("process_group", *names)
    report, out = tmp_path / "report.json", ("--out", str(tmp_path))
    given = ("--device", "cpu", "--report", str(report), "--at-once", "2", "--only", *checks)
    said = script("gpu_check.py", *out, *given)
    assert "8 ok, 1 skipped, 0 FAILED" in said
    rows = json.loads(report.read_text())["checks"]
    assert {row["check"] for row in rows} == set(checks)
    assert {row["check"] for row in rows if row["status"] == "skipped"} == {"flash_kernel"}
    lines = lines_of(tmp_path, "gpu_check")
    assert {name: line["status"] for name, line in lines.items()} == {
        row["check"]: row["status"] for row in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "figure", "last"),
    [
        (
            "gpu_training",
            ("--models", "proxy_1m", "--no-compile", *TURNS),
            "tokens_per_second",
            "proxy_1m plain",
        ),
        (
            "gpu_scoring",
            ("--sizes", "0.5M", "--count", "4", "--repeats", "1"),
            "items_per_second",
            "scoring 0.5M stock lighteval",
        ),
    ],
)
def test_a_benchmark_runs_on_a_cpu_and_writes_each_figure(
    tmp_path: Path, name: str, arguments: tuple[str, ...], figure: str, last: str
) -> None:
    out = ("--device", "cpu", "--out", str(tmp_path))
    said = script(f"{name}.py", *out, *arguments)
    assert "MFU" not in said
    lines = lines_of(tmp_path, name)
    assert lines[last][figure] > 0
    assert not any(line.get("failed") or line.get("not_reached") for line in lines.values())
    table = script("gpu_table.py", str(tmp_path))
    assert f"| {name} | {last} | " in table
    if name == "gpu_training":
        later = tmp_path / "no_time"
        script(f"{name}.py", "--device", "cpu", "--out", str(later), "--minutes", "0", *arguments)
        planned = lines_of(later, name)
        assert planned.keys() >= {"proxy_1m ours", last}
        assert all(line["not_reached"] for line in planned.values())
        assert "not reached" in script("gpu_table.py", str(later))


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "data" / "demo_bpe").exists(), reason="the demo's text: run `ablate prepare`"
)
def test_the_study_runs_on_a_cpu_from_the_demo_text_to_its_verdict(tmp_path: Path) -> None:
    script("gpu_study.py", "--device", "cpu", "--out", str(tmp_path), "--data", str(ROOT / "data"))
    lines = lines_of(tmp_path, "gpu_study")
    assert lines["runs"]["done"] == lines["runs"]["runs"] >= 4
    assert lines["verdict"]["verdict"] in ("winner", "tie", "keep-baseline")
    assert (tmp_path / "gpu_study_records.tar.gz").exists()


def test_figures_outlive_a_failure_and_the_end_names_what_was_not_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with gpu_figures.Figures("some", tmp_path, 1.0, torch.device("cpu")) as figures:
            figures.plan(["first", "second", "third"])
            with figures.part("first") as begin:
                figures.add("first", "well", value=3)
            with figures.part("second"):
                raise ValueError("odd\nsecond line")
            lines = lines_of(tmp_path, "some")  # while the script still runs
            assert begin
            assert lines["first"]["value"] == 3
            assert lines["second"]["failed"] == "ValueError: odd"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    lines = lines_of(tmp_path, "some")
    assert [name for name, line in lines.items() if line.get("not_reached")] == ["third"]
    assert "not reached" in capsys.readouterr().out


# torch asks for it itself, and hides the warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_yardstick_compiles_one_layer_for_all_and_its_head_to_the_same_loss() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    tokens = torch.arange(34).reshape(2, 17) % 64
    ids, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    plain, blocks = PlainLlama(TINY, 1, 16), PlainLlama(TINY, 1, 16)
    blocks.compile_blocks("aot_eager")
    compiled = blocks(ids, labels)
    compiled.backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch.testing.assert_close(compiled, plain(ids, labels), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("device", "local_rank", "settled"),
    [
        ("cuda", None, "cuda:0"),
        ("cuda", "3", "cuda:3"),
        ("cuda:1", "3", "cuda:1"),
        ("cpu", "3", "cpu"),
    ],
)
def test_a_device_without_an_index_is_that_of_the_rank(
    monkeypatch: pytest.MonkeyPatch, device: str, local_rank: str | None, settled: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert str(indexed(torch.device(device))) == settled


@pytest.mark.parametrize(
    ("slots", "usable_gib"), [(None, 79.0), ("1", 79.0), ("2", 38.0), ("16", 3.4375)]
)
def test_a_process_that_shares_a_gpu_leaves_room_for_the_contexts_of_the_others(
    tmp_path: Path,
    stores: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    slots: str | None,
    usable_gib: float,
) -> None:
    monkeypatch.delenv("ABLATIONS_DEVICE_SHARED_BY", raising=False)
    if slots is not None:
        monkeypatch.setenv("ABLATIONS_DEVICE_SHARED_BY", slots)
    whole = Namespace(total_memory=79 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: whole)
    given = Namespace(device="cuda", length=2048, batch=32, compile=False, shipped=True)
    job = gpu_common.job_of("proxy_15m", tmp_path, stores, given)
    settled, cut = fit(job, torch.device("cuda"))
    sizes = {
        micro: memory_of(
            settled.model,
            settled.training,
            settled.execution,
            micro_batch_size=micro,
            chunk_tokens=settled.execution.loss_chunk_tokens,
        ).total
        for micro in (1, 2, 4, 8, 16, 32)
    }
    usable = 0.9 * usable_gib * 2**30
    assert cut.micro_batch_size == max(n for n, size in sizes.items() if size <= usable)


@pytest.mark.parametrize(
    ("wheel", "code", "missing"),
    [
        ("Requires-Dist: nest_asyncio2", "", "some wants nest_asyncio2"),
        ("Requires-Dist: nest_asyncio2; extra == 'more'", "", None),
        ("Requires-Dist: torch", "", None),
        ("", "def work():\n    import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("", "import some.part\nimport torch.distributed\nimport json\n", None),
    ],
)
def test_a_bundle_that_lacks_a_package_or_a_module_is_refused(
    tmp_path: Path, wheel: str, code: str, missing: str | None
) -> None:
    info = tmp_path / "site" / "some-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "some").mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some\nVersion: 1.0\n{wheel}\n")
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "module.py").write_text(code)
    if missing is None:
        gpu_bundle.require_complete(tmp_path)
    else:
        with pytest.raises(gpu_bundle.BundleError, match=missing):
            gpu_bundle.require_complete(tmp_path)


def test_every_bundled_package_has_a_version_in_the_lock() -> None:
    locked = gpu_bundle.locked()
    assert locked.keys() == set(gpu_bundle.PACKAGES)
    assert all(locked.values())
    assert not gpu_bundle.MACHINE & set(gpu_bundle.PACKAGES)


def test_the_bundle_holds_every_module_that_the_project_imports(tmp_path: Path) -> None:
    for name in gpu_bundle.PROJECT:
        if (ROOT / name).is_dir():
            unused = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=unused)
    (tmp_path / "site").mkdir()
    for module, packages in packages_distributions().items():
        if {canonicalize_name(package) for package in packages} & set(gpu_bundle.PACKAGES):
            (tmp_path / "site" / module).touch()
    assert gpu_bundle.missing_modules(tmp_path) == []


def test_a_check_that_dies_hangs_or_comes_too_late_is_a_failure(tmp_path: Path) -> None:
    def watched(code: str, limit: float) -> tuple[str, str]:
        return gpu_check._watched([sys.executable, "-c", code], limit, tmp_path / "x.log")

    status, said = watched("import os; print('the last words', flush=True); os._exit(3)", 60)
    assert status == "FAILED"
    assert "code 3; the last words" in said
    status, said = watched("import time; time.sleep(60)", 0.5)
    assert status == "FAILED"
    assert "not over after" in said
    with gpu_figures.Figures("gpu_check", tmp_path, 1.0, torch.device("cpu")) as figures:
        given = Namespace(device="cpu")
        late = gpu_check.run("fp32_losses", tmp_path, given, time.monotonic() - 1, figures)
    assert lines_of(tmp_path, "gpu_check")["fp32_losses"]["status"] == "FAILED"
    assert (late["status"], late["said"]) == ("FAILED", "no time was left for it")


@pytest.mark.parametrize(
    ("device", "mfu"), [("NVIDIA H100 80GB HBM3", "MFU  50.0%"), ("NVIDIA A100-SXM4-80GB", None)]
)
def test_utilisation_is_told_of_devices_with_a_known_peak_alone(
    tmp_path: Path,
    stores: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: str,
    mfu: str | None,
) -> None:
    job = make_job(tmp_path, stores)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: device)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    rate = 0.5 * 989e12 / job.model.flops_per_token(job.training.sequence_length)
    with gpu_figures.Figures("some", tmp_path, 1.0, torch.device("cpu")) as figures:
        gpu_common.report(figures, "model", job, rate, torch.device("cuda"))
    assert (lines_of(tmp_path, "some")["model"].get("mfu") == 0.5) == (mfu is not None)
    said = capsys.readouterr().out
    assert (mfu or "tokens/s") in said
    assert ("MFU" in said) == (mfu is not None)
