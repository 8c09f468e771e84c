"""Config files of somebody else's that want to run or to read, for benchmarks/hostile_names.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.hostile_values import HostileCase, python_text

__all__ = ["config_files", "hydra_sections"]


def _experiment(values: Any) -> Callable[[Path], None]:
    def prepare(workspace: Path) -> None:
        folder = workspace / "conf/experiment"
        folder.mkdir(parents=True)
        text = values if isinstance(values, str) else yaml.safe_dump(values)
        (folder / "x.yaml").write_text("# @package _global_\n" + text)
        (workspace / "stranger.py").write_text(python_text("stranger"))

    return prepare


_OF_FILE = ("--config-dir", "conf", "experiment=x")


def config_files(names: Mapping[str, str]) -> Iterator[HostileCase]:
    for kind, name in names.items():
        values = {
            "study": name,
            "trial": name,
            "labels": {"note": name},
            "source": {"wiki": {"origin": {"kind": "files", "paths": [name]}, "note": name}},
            "evaluation": {"tasks": {name: {"items": name}}},
            "prepare": {"slurm": {"partition": name, "time": name}},
            "runs_dir": name,
        }
        for section in ("study", "labels", "source", "prepare", "runs_dir"):
            if section in ("labels", "prepare") or kind in ("substitution", "oc.env", "parents"):
                yield HostileCase(
                    f"config file, {section}: {kind}",
                    (
                        ("plan", *_OF_FILE),
                        ("prepare", *_OF_FILE, "prepare.mirror=empty", "progress=false"),
                        ("plan", "--cfg", "job", "--resolve", *_OF_FILE),
                        ("export", "format=weights", *_OF_FILE),
                    ),
                    _experiment({section: values[section]}),
                    config=True,
                )


_HANDLERS = {"version": 1, "root": {"handlers": ["x"], "level": "INFO"}}

_HYDRA: Mapping[str, Mapping[str, Any]] = {
    "callback": {"callbacks": {"x": {"_target_": "stranger.f"}}},
    "callback of os": {"callbacks": {"x": {"_target_": "os.system", "command": "canary"}}},
    "callback of subprocess": {
        "callbacks": {"x": {"_target_": "subprocess.getoutput", "cmd": "canary"}}
    },
    "callback that copies": {
        "callbacks": {"x": {"_target_": "shutil.copyfile", "src": "stranger.py", "dst": "ran"}}
    },
    "callback that reads": {"callbacks": {"x": {"_target_": "os.getenv", "key": "HOSTILE_TOKEN"}}},
    "factory of a handler": {"job_logging": {**_HANDLERS, "handlers": {"x": {"()": "stranger.f"}}}},
    "factory of os": {
        "hydra_logging": {**_HANDLERS, "handlers": {"x": {"()": "os.system", "command": "canary"}}}
    },
    "handler that writes": {
        "job_logging": {
            **_HANDLERS,
            "handlers": {"x": {"class": "logging.FileHandler", "filename": "ran"}},
        }
    },
    "environment": {"job": {"env_set": {"PYTHONPATH": ".", "PATH": ".", "LD_PRELOAD": "x"}}},
    "preload": {"launcher": {"preload": ["stranger"]}},
    "folder of a secret": {"run": {"dir": "x-${oc.env:HOSTILE_TOKEN}"}},
    "folder of a secret in a sweep": {"sweep": {"dir": "x-${oc.env:HOSTILE_TOKEN}"}},
    "subfolder of a secret": {"output_subdir": "${oc.env:HOSTILE_TOKEN}"},
    "target of a launcher": {"launcher": {"_target_": "os.system"}},
    "target of a sweeper": {"sweeper": {"_target_": "stranger.f"}},
    "search path": {"searchpath": ["pkg://stranger"]},
}


def hydra_sections() -> Iterator[HostileCase]:
    for kind, values in _HYDRA.items():
        yield HostileCase(
            f"config file, hydra: {kind}",
            (("plan", *_OF_FILE), ("run", "-m", *_OF_FILE, "search=none", "seed=0,1")),
            _experiment({"hydra": values}),
            config=True,
        )
    texts = {
        "code of a program": "program: {module: stranger}",
        "code of what comes after": "after: {module: stranger}",
        "a python tag": "labels: {x: !!python/object/apply:os.system [canary]}",
        "lines of prepare": "prepare: {slurm: {partition: cpu, env_command: canary}}",
        "a secret as a key": 'study: "${${oc.env:HOSTILE_TOKEN}}"',
        "a secret as a number": 'seed: "${oc.env:HOSTILE_TOKEN}"',
        "a secret as a variable": 'study: "${oc.env:${oc.env:HOSTILE_TOKEN}}"',
        "a secret as an option": 'defaults: [{override /model: "${oc.env:HOSTILE_TOKEN}"}]',
        "a resolver": 'study: "${hydra:runtime.cwd}${oc.create:{a:1}}"',
    }
    for kind, text in texts.items():
        commands = (
            ("plan", *_OF_FILE),
            ("prepare", *_OF_FILE, "prepare.mirror=empty"),
            ("run", *_OF_FILE, "progress=false"),
            ("plan", "--cfg", "job", "--resolve", *_OF_FILE),
        )
        yield HostileCase(f"config file, {kind}", commands, _experiment(text), config=True)

    def launcher(workspace: Path) -> None:
        folder = workspace / "conf/hydra/launcher"
        folder.mkdir(parents=True)
        text = 'defaults: [submitit_slurm, _self_]\nsetup: [canary]\npartition: "a\\ncanary"\n'
        (folder / "slots.yaml").write_text(text)

    words = ("run", "-m", "--config-dir", "conf", "search=none", "seed=0,1")
    yield HostileCase("config file in the place of a launcher", (words,), launcher, config=True)
