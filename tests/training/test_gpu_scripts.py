"""The GPU scripts run on a CPU, so that they have not rotted when a GPU is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check, gpu_common
from tests.oracles.jobs import make_job

ROOT = Path(__file__).resolve().parents[2]
TURNS = ("--steps", "1", "--rounds", "1")


def script(name: str, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_check_passes_what_a_cpu_can_show_and_skips_the_rest(tmp_path: Path) -> None:
    checks = ("process_group", "flash_kernel", "masking", "resume", "export", "scoring", "study")
    report = tmp_path / "report.json"
    said = script("gpu_check.py", "--device", "cpu", "--report", str(report), "--only", *checks)
    assert "6 ok, 1 skipped, 0 FAILED" in said
    rows = json.loads(report.read_text())["checks"]
    assert [row["check"] for row in rows] == list(checks)
    assert {row["check"] for row in rows if row["status"] == "skipped"} == {"flash_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("gpu_training.py", ("--models", "proxy_1m", "--no-compile", *TURNS), "x the plain loop"),
        ("gpu_together.py", ("--proxies", "3", "--no-compile", *TURNS), "x one after another"),
        ("gpu_scoring.py", ("--sizes", "0.5M", "--count", "4", "--repeats", "1"), "items/s"),
    ],
)
def test_a_benchmark_runs_on_a_cpu(name: str, arguments: tuple[str, ...], says: str) -> None:
    said = script(name, "--device", "cpu", *arguments)
    assert says in said
    assert "MFU" not in said


def test_a_check_that_dies_hangs_or_comes_too_late_is_a_failure(tmp_path: Path) -> None:
    def watched(code: str, limit: float) -> tuple[str, str]:
        return gpu_check._watched([sys.executable, "-c", code], limit, tmp_path / "x.log")

    status, said = watched("import os; print('the last words', flush=True); os._exit(3)", 60)
    assert status == "FAILED"
    assert "code 3; the last words" in said
    status, said = watched("import time; time.sleep(60)", 0.5)
    assert status == "FAILED"
    assert "not over after" in said
    late = gpu_check.run("fp32_losses", tmp_path, Namespace(device="cpu"), time.monotonic() - 1)
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
    gpu_common.report("model", job, rate, torch.device("cuda"))
    said = capsys.readouterr().out
    assert (mfu or "tokens/s") in said
    assert ("MFU" in said) == (mfu is not None)
