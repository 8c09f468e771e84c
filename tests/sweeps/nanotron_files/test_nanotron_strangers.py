"""Untrusted files give one message each, are not interpolated, and have the trained learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ablations.config.literal import literal
from ablations.errors import ConfigError
from sweeps.nanotron_files import check, load_yaml, oddities, parse, read
from sweeps.nanotron_files.foreign_yaml import MOST_BYTES
from sweeps.nanotron_files.import_published import import_file, write_import
from sweeps.nanotron_files.write_back import Specs, text_back, write_back
from tests.conftest import Ablate
from tests.oracles.nanotron_meaning import meaning

GOLDEN = Path(__file__).parents[2] / "golden" / "promotion" / "published"
CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "nanotron_files"

Document = dict[str, Any]


def document(**scheduler: object) -> Document:
    """Return two stages of a small Llama, 100 steps, with this learning rate."""
    made = load_yaml((GOLDEN / "two_stages.yaml").read_text())
    made["optimizer"]["learning_rate_scheduler"] |= scheduler
    return made


def written(path: Path, made: Document) -> Path:
    path.write_text(yaml.safe_dump(made))
    return path


def laughs(depth: int = 10) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (laughs(), "too many values"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("{a: " * 5000, "nested too deeply"),
        ("- " * 5000 + "x", "nested too deeply"),
        ("a: &a [*a]", "alias"),
        ("a: 2001-13-45", "cannot read"),
        ("a: " + "9" * 5000, "cannot read"),
        ("? [1, 2]\n: 3", "a list or a mapping"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
    ids=["laughs", "flow", "maps", "block", "cycle", "date", "digits", "key", "object"],
)
def test_text_that_is_a_trap_ends_with_one_message(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_yaml(text)


def test_aliases_of_an_ordinary_size_are_read() -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: \xe9\xe8", "not UTF-8"), (b"#" * (MOST_BYTES + 1), "too large")],
    ids=["latin", "large"],
)
def test_bytes_that_are_no_config_end_with_one_message(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optimizer.learning_rate_scheduler.learning_rate", float("inf"), "not a finite number"),
        ("optimizer.learning_rate_scheduler.learning_rate", float("nan"), "not a finite number"),
        ("optimizer.learning_rate_scheduler.learning_rate", 0.0, "above zero"),
        ("optimizer.learning_rate_scheduler.min_decay_lr", 5.0, "outside the range"),
        ("optimizer.learning_rate_scheduler.lr_warmup_steps", -1, "below zero"),
        ("tokens.train_steps", 99999999999999999999999, "too large"),
        ("tokens.train_steps", 10**12, "no number of steps"),
        ("tokens.sequence_length", 0, "at least 1"),
        ("parallelism.tp", 0, "at least 1"),
        ("checkpoints.checkpoint_interval", 0, "at least 1"),
    ],
)
def test_numbers_that_no_run_can_have_are_reported_by_key(
    key: str, value: float, said: str
) -> None:
    made = document()
    *parents, last = key.split(".")
    section = made
    for parent in parents:
        section = section[parent]
    section[last] = value
    assert [p for p in check(made) if p.where == key and said in str(p)]


@given(st.lists(st.sampled_from(["\\", "${", "}", "$", "a", ":", "'", '"', " ", "oc.env:HOME"])))
def test_text_of_others_is_text_after_hydra_read_it(parts: list[str]) -> None:
    text = "".join(parts)
    plain = {"key": [text, {"inner": text}]}
    assert OmegaConf.to_container(OmegaConf.create(literal(plain)), resolve=True) == plain


def test_no_variable_of_the_environment_gets_into_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.setenv("STRANGE_TOKEN", "secret-of-mine")
    monkeypatch.chdir(tmp_path)
    asked = "${oc.env:STRANGE_TOKEN}"
    made = document()
    made["tokenizer"]["tokenizer_name_or_path"] = asked
    for stage in made["data_stages"]:
        stage["data"]["dataset"].update(tokenizer_name=asked, dataset_read_path=None)
        folders = stage["data"]["dataset"]["dataset_folder"]
        folders[0] = f"data/{asked}/{Path(folders[0]).name}"
    path = written(tmp_path / "theirs.yaml", made)
    assert ablate("import", f"file={path}", "name=theirs").code == 0
    assert parse(load_yaml(Path("imports/theirs/theirs.nanotron.yaml").read_text())).tokenizer
    conf = ("--config-dir", "imports/theirs/conf", "experiment=theirs")
    for arguments in (("plan", *conf), ("run", *conf, "--cfg", "job", "--resolve")):
        answer = ablate(*arguments)
        assert answer.code == 0, answer.err
        assert "secret-of-mine" not in answer.out + answer.err
    assert asked in answer.out
    for file in Path("imports").rglob("*.*"):
        assert "secret-of-mine" not in file.read_text()


@pytest.mark.parametrize(
    ("scheduler", "window", "style"),
    [
        ({"lr_decay_starting_step": 61, "lr_decay_steps": None}, (61, 95), "linear"),
        ({"lr_decay_starting_step": 20, "lr_decay_steps": 30}, (20, 50), "linear"),
        ({"lr_decay_starting_step": None, "lr_decay_steps": 40}, (5, 45), "linear"),
        ({"lr_decay_starting_step": None, "lr_decay_steps": None}, (5, 100), "linear"),
        ({"lr_decay_starting_step": 61, "lr_decay_steps": 40}, (61, 101), "linear"),
        (
            {
                "lr_decay_starting_step": 61,
                "lr_decay_steps": 40,
                "lr_warmup_style": "constant",
            },
            (61, 101),
            "constant",
        ),
    ],
    ids=["A", "B", "D", "null", "SmolLM3", "E"],
)
def test_the_rate_is_read_as_nanotrons_scheduler_trains_it(
    scheduler: Document, window: tuple[int, int], style: str, tmp_path: Path
) -> None:
    made = document(**scheduler)
    imported = import_file(written(tmp_path / "f.yaml", made), "f")
    specs = Specs.of_plain(imported.configs, "f")
    _, rate = specs.built()
    start, end = window
    assert (rate.decay_start, rate.decay_start + rate.decay_steps) == window
    assert rate.factor(0) == (1.0 if style == "constant" else pytest.approx(0.2))
    assert rate.factor(start - 1) == 1.0
    assert rate.factor(start) < 1.0
    if end <= 100:
        assert rate.factor(end - 1) == pytest.approx(0.0)
        assert rate.factor(99) == pytest.approx(0.0)
    else:
        assert rate.factor(99) > 0.0
    back = load_yaml(text_back(specs, imported.sidecar))
    kept = back["optimizer"]["learning_rate_scheduler"]
    assert {key: kept[key] for key in scheduler} == scheduler
    assert meaning(parse(back)) == meaning(imported.file)


def test_a_changed_rate_is_written_with_both_of_its_steps(tmp_path: Path) -> None:
    made = document(lr_decay_starting_step=20, lr_decay_steps=30)
    imported = import_file(written(tmp_path / "f.yaml", made), "f")
    schedule = {**imported.configs["schedule/f"]}
    schedule["lr"] = {**schedule["lr"], "decay_steps": 10}
    specs = Specs.of_plain({**imported.configs, "schedule/f": schedule}, "f")
    rate = write_back(specs, imported.sidecar).optimizer.learning_rate_scheduler
    assert (rate.lr_decay_starting_step, rate.lr_decay_steps) == (40, 10)
    schedule["lr"] = {**schedule["lr"], "decay_steps": 0, "tail_steps": 0}
    specs = Specs.of_plain({**imported.configs, "schedule/f": schedule}, "f")
    rate = write_back(specs, imported.sidecar).optimizer.learning_rate_scheduler
    assert rate.min_decay_lr == rate.learning_rate


def test_if_loader_and_scheduler_disagree_both_are_reported() -> None:
    made = document(lr_decay_starting_step=61, lr_decay_steps=None)
    (found,) = [o for o in oddities(parse(made)) if o.kind == "decay_default"]
    assert "61 to 95" in found.what
    assert "61 to 156" in found.what


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"lr_decay_starting_step": 3, "lr_decay_steps": 10}, "inside the warm-up"),
        ({"lr_decay_starting_step": 61, "lr_decay_steps": 0}, "at once"),
        ({"lr_decay_starting_step": 97, "lr_decay_steps": None}, "at once"),
        ({"lr_warmup_steps": 0, "lr_decay_steps": 0}, "multiplies the rate by itself"),
        ({"lr_warmup_steps": 101, "lr_decay_starting_step": 101}, "longer than the run"),
    ],
)
def test_a_rate_that_our_configs_cannot_hold_is_refused(
    scheduler: Document, said: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "f.yaml", document(**scheduler))
    with pytest.raises(ConfigError, match=said):
        import_file(path, "f")


def test_flash_attention_in_float32_is_reported() -> None:
    made = document()
    made["model"]["dtype"] = "float32"
    assert "attention_dtype" in [oddity.kind for oddity in oddities(parse(made))]


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize("name", ["huge", "inf", "nan", "latin", "laughs"])
def test_the_cases_that_no_run_can_be_made_of_exit_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ablate("import", f"file={CASES / name}.yaml", "name=case")
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert not Path("imports").exists()


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("lr_A_start_no_steps", (61, 95)),
        ("lr_B_ends_early", (20, 50)),
        ("lr_D_null_start", (5, 45)),
        ("lr_E_warm_const", (61, 101)),
    ],
)
def test_the_cases_of_the_rate_have_their_right_values(name: str, window: tuple[int, int]) -> None:
    imported = import_file(CASES / f"{name}.yaml", "x")
    _, rate = Specs.of_plain(imported.configs, "x").built()
    assert (rate.decay_start, rate.decay_start + rate.decay_steps) == window
    assert rate.warmup_steps == (0 if name.startswith("lr_E") else 5)


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
def test_the_other_cases_are_read_as_they_were_meant(tmp_path: Path) -> None:
    fused = import_file(CASES / "qwen_nofused.yaml", "x")
    back = text_back(Specs.of_plain(fused.configs, "x"), fused.sidecar)
    assert "_fused_rms_norm" not in back
    assert "_use_qkv_packed" not in back
    folder = write_import(import_file(CASES / "interp.yaml", "x"), tmp_path / "x")
    tokenizer = OmegaConf.load(folder / "conf" / "tokenizer" / "x.yaml")
    plain = OmegaConf.to_container(tokenizer, resolve=True)
    assert isinstance(plain, dict)
    assert plain["repo"] == "${oc.env:HF_TOKEN}"
