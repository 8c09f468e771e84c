"""``dtype: auto``: what it chooses, where that is recorded, and which machine is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations import precision
from ablations.errors import ConfigError
from ablations.execute import identity, open_work
from ablations.files import read_json
from ablations.precision import (
    PRECISION_FILE,
    bfloat16_units,
    choose_dtype,
    on_gpus,
    with_precision,
)
from ablations.record.identity import fingerprint
from tests.test_plan import composed

UNITS = ("avx512_bf16",)


def on_machine(
    monkeypatch: pytest.MonkeyPatch, units: tuple[str, ...], *, cuda: bool = False
) -> None:
    monkeypatch.setattr(precision, "bfloat16_units", lambda: units)
    monkeypatch.setattr(precision, "_sees_cuda", lambda: cuda)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 vnni\nbugs\t: x\n", ("avx512_bf16",)),
        ("flags : amx_bf16 avx512_bf16\nflags : fpu\n", ("avx512_bf16", "amx_bf16")),
        ("flags : fpu avx512f\nbugs : avx512_bf16\n", ()),
        ("flags : fpu avx512_bf16x\n", ()),
        ("Features : fp asimd bf16\n", ()),
        (None, ()),
    ],
)
def test_the_units_are_those_that_the_kernel_lists(
    tmp_path: Path, text: str | None, units: tuple[str, ...]
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert bfloat16_units(file) == units


@pytest.mark.parametrize(
    ("device", "units", "cuda", "chosen"),
    [
        ("auto", (), False, "float32"),
        ("auto", UNITS, False, "bfloat16"),
        ("auto", (), True, "bfloat16"),
        ("cpu", (), True, "float32"),
        ("cpu", UNITS, False, "bfloat16"),
        ("cuda", (), False, "bfloat16"),
    ],
)
def test_the_choice_is_what_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, device: str, units: tuple[str, ...], cuda: bool, chosen: str
) -> None:
    on_machine(monkeypatch, units, cuda=cuda)
    assert choose_dtype(device) == chosen  # type: ignore[arg-type]


def test_a_chosen_type_is_recorded_as_if_it_had_been_named(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, UNITS)
    automatic = composed("training.dtype=auto", "evaluation.dtype=auto", "execution.device=cpu")
    record = open_work(automatic).record
    assert record.manifest.config["training"]["dtype"] == "bfloat16"
    assert record.manifest.config["evaluation"]["dtype"] == "bfloat16"
    named = composed("training.dtype=bfloat16", "evaluation.dtype=bfloat16")
    assert fingerprint(identity(named), record.manifest.items) == record.manifest.fingerprint
    assert open_work(automatic).job.training.dtype == "bfloat16"


def test_without_auto_nothing_is_chosen_and_old_fingerprints_stay(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, UNITS)
    config = composed()
    assert with_precision(config) is config
    assert "dtype" not in identity(config)["evaluation"]
    record = open_work(config).record
    assert record.manifest.config["training"]["dtype"] == "float32"
    assert not (record.path.parent / PRECISION_FILE).exists()


def test_a_machine_that_chooses_another_type_is_refused_within_a_study(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, UNITS)
    config = composed("training.dtype=auto", "execution.device=cpu", "trial=one")
    record = open_work(config).record
    stored = record.path.parent / PRECISION_FILE
    assert read_json(stored)["dtype"] == "bfloat16"

    on_machine(monkeypatch, ())
    other = composed("training.dtype=auto", "execution.device=cpu", "trial=two")
    with pytest.raises(ConfigError) as refused:
        open_work(other)
    (problem,) = refused.value.problems
    assert problem.where == "training.dtype"
    assert "float32" in str(problem.found)
    assert "bfloat16" in str(problem.allowed)
    assert "training.dtype=bfloat16" in str(problem.do)
    assert not (record.path.parent / "two-0").exists()

    named = composed("training.dtype=float32", "execution.device=cpu", "trial=three")
    assert open_work(named).job.training.dtype == "float32"
    elsewhere = composed("training.dtype=auto", "execution.device=cpu", "study=another")
    assert open_work(elsewhere).job.training.dtype == "float32"
    assert read_json(stored)["dtype"] == "bfloat16"


def test_files_for_trainers_on_gpus_name_bfloat16() -> None:
    assert on_gpus(composed("training.dtype=auto").training).dtype == "bfloat16"
    assert on_gpus(composed("training.dtype=float32").training).dtype == "float32"
