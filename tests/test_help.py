"""``ablate COMMAND --help`` explains each option of the command, and words that are no options are told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablations.command_help import command_help, option_sections
from ablations.command_table import COMMANDS
from ablations.config.schema import conf_dir
from tests.conftest import Ablate


def _leaves(value: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{where}.{key}" if where else str(key))
    else:
        yield where


def _composed(command: str) -> Mapping[str, Any]:
    """Return the command's config, unchanged."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        plain = OmegaConf.to_container(compose(COMMANDS[command].config), resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_a_command_is_explained(command: str) -> None:
    options = [option for section in option_sections(command) for option in section.options]
    texts = {option.key: option.text for option in options}
    assert [key for key, text in texts.items() if not text] == []
    patterns = [re.escape(key).replace("<name>", r"[^.]+") for key in texts]
    known = re.compile(rf"(?:{'|'.join(patterns)})(?:\..*)?")
    assert [key for key in _leaves(_composed(command)) if not known.fullmatch(key)] == []
    shown = command_help(command)
    missing = [option.key for option in options if f"  {option.key}  (" not in shown]
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_three_examples(command: str, ablate: Ablate) -> None:
    answer = ablate(command, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"ablate {command}: {COMMANDS[command].help}\n")
    assert "cli" not in re.findall(r"\w+", answer.out)
    examples = re.findall(rf"^  ablate {command}\b(.*)$", answer.out, re.M)
    assert len(examples) == 3
    assert answer.out.count("groups: choose one with") == int(COMMANDS[command].of_a_run)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_compose(command: str, ablate: Ablate) -> None:
    for words in COMMANDS[command].examples:
        given = [word for word in shlex.split(words) if word not in ("-m", "json=true")]
        if "--config-dir" not in given:  # the guide's own folder: its test runs it
            answer = ablate(command, *given, "--cfg", "job")
            assert answer.code == 0, answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_use_keys_that_the_command_has(command: str) -> None:
    options = [option.key for section in option_sections(command) for option in section.options]
    keys = [re.escape(key).replace("<name>", r"[^.]+") for key in options]
    groups = r"experiment|full|hydra/launcher|hydra\.launcher\.partition"
    known = re.compile(rf"(?:{'|'.join(keys)}|{groups})(?:\..*)?")
    for words in COMMANDS[command].examples:
        for key in re.findall(r"(\S+?)=", re.sub(r'"[^"]*"', "text", words)):
            assert known.fullmatch(key.lstrip("+")), key


def test_the_types_ranges_and_defaults_are_shown() -> None:
    shown = command_help("fit")
    assert "  resamples  (whole number, 0 to 100,000; default 20)" in shown
    assert "  direction  (maximize, minimize; default minimize)" in shown
    assert "  training.sequence_length  (whole number)" in command_help("plan")
    assert "  checkpoint  (text; needed)" in command_help("score")


def test_the_groups_of_a_users_folder_are_listed(tmp_path: Path, ablate: Ablate) -> None:
    (tmp_path / "mine/mixture").mkdir(parents=True)
    (tmp_path / "mine/mixture/of_my_own.yaml").write_text("weights: {wiki: 1.0}\n")
    answer = ablate("plan", "--config-dir", str(tmp_path / "mine"), "--help")
    assert "of_my_own" in answer.out
    assert "of_my_own" not in ablate("plan", "--help").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "--study", "x"], "write study=x; ablate plan --help"),
        (["plan", "--study=x"], "write study=x; ablate plan --help"),
        (["ls", "--runs-dir", "r"], "write runs_dir=r; ablate ls --help"),
        (["run", "--multi-run", "seed=1"], "or --multirun"),
        (["verdict", "demo"], "write study=demo?"),
        (["run", "demo_ratio", "-m"], "write experiment=demo_ratio?"),
        (["score", "runs"], "write checkpoint=runs?"),
        (["plan", "--config-dir"], "--config-dir: needs a value"),
    ],
)
def test_a_word_that_is_no_option_is_told_what_to_write(
    ablate: Ablate, words: list[str], said: str
) -> None:
    answer = ablate(*words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("error: 1 problem")


def test_the_program_is_called_ablate(ablate: Ablate) -> None:
    assert ablate("plan", "--version").out.startswith("ablate ")
    assert "    name: ablate\n" in ablate("ls", "--cfg", "hydra").out
