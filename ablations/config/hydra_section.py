"""Check what a composed config asks of Hydra itself, before Hydra does any of it.

A config folder may come from somebody else. Hydra's own section can call functions by name
(``callbacks``, ``job_logging``), set variables of the environment and bring lines of a job's script. No
config names code, so the first two are refused; lines of a script count where the command line gives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.config.environment_secrets import secret_problems
from ablations.errors import ConfigError, Problem

__all__ = ["checked_composing", "require_harmless"]

_OWN_PACKAGES = ("hydra", "ablations", "sweeps", "analysis")
_PRINTING = ("logging.StreamHandler", "logging.NullHandler")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

_USED = ("run", "sweep", "job.name", "launcher", "sweeper", "output_subdir", "verbose")
"""Parts of Hydra's section whose texts become folders, lines of scripts and names of jobs."""

_SCRIPT_LINES = (
    "hydra.launcher.setup",
    "hydra.launcher.python",
    "hydra.launcher.srun_args",
    "hydra.launcher.additional_parameters",
    "prepare.slurm.env_command",
)
"""Keys whose values the script of a job runs, or hands to programs that run them."""


@contextlib.contextmanager
def checked_composing(*, shown: bool = False) -> Iterator[None]:
    """Let Hydra compose configs through :func:`require_harmless`.

    Args:
        shown: The composed config is printed with its values: it must hold no secret at all.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    loader: Any = ConfigLoaderImpl
    plain_load = loader._load_configuration_impl

    def load_configuration(self: Any, *given: Any, **named: Any) -> Any:
        composed = plain_load(self, *given, **named)
        require_harmless(self, composed, plain_load)
        if shown and (problems := list(secret_problems(_values("", composed)))):
            raise ConfigError(problems)
        return composed

    loader._load_configuration_impl = load_configuration
    try:
        yield
    finally:
        loader._load_configuration_impl = plain_load


def require_harmless(loader: Any, composed: Any, compose: Any = None) -> None:
    """Refuse a composed config that would have Hydra run code named in a config file.

    Args:
        loader: Hydra's, which composed it.
        composed: The config, with its ``hydra`` section.
        compose: The loader's unbound method that composes; None = its own.

    Raises:
        ConfigError: every problem found.
    """
    hydra = composed.get("hydra")
    if hydra is None:  # left out already: nothing is asked of Hydra
        return
    used = {
        key: value
        for section in _USED
        for key, value in _values(f"hydra.{section}", _node(hydra, section)).items()
    }
    problems = [
        *_called(hydra),
        *_logged(hydra, "job_logging"),
        *_logged(hydra, "hydra_logging"),
        *_unknown_plugins(used),
        *_launched(used),
        *secret_problems(used),
    ]
    problems = problems or list(_script_lines(loader, composed, compose))
    if problems:
        raise ConfigError(problems)


def _called(hydra: Any) -> Iterator[Problem]:
    if callbacks := hydra.get("callbacks"):
        yield _no_code("hydra.callbacks", ", ".join(map(str, callbacks)))
    if variables := hydra.job.get("env_set"):
        yield Problem(
            "hydra.job.env_set",
            "sets variables of the environment, which decide what programs are run",
            found=", ".join(map(str, variables))[:60],
            do="set them in the shell",
        )


def _no_code(where: str, found: str) -> Problem:
    return Problem(
        where,
        "names code; no config names code to be called",
        found=found[:60],
        do="take it out",
    )


def _logged(hydra: Any, section: str) -> Iterator[Problem]:
    """Yield what a logging section would call, or write elsewhere than to the terminal."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = f"hydra.{section}"
    try:
        node = hydra.get(section)
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        yield Problem(where, "cannot be looked up", found=str(error).partition("\n")[0])
        return
    if found := next(_factories(plain), None):
        yield _no_code(where, found)


def _factories(value: Any) -> Iterator[str]:
    """Yield what Python's logging would import and call, handlers that print excepted."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("()", ".", "_target_") or (key == "class" and inner not in _PRINTING):
                yield f"{key}: {inner}"
            else:
                yield from _factories(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _factories(inner)
    elif isinstance(value, str) and "://" in value and value not in _STREAMS:
        yield value


def _unknown_plugins(used: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the launcher or sweeper that is no plugin of Hydra's: nothing else may be called."""
    from hydra.core.plugins import Plugins

    known = Plugins.instance().class_name_to_class
    for section in ("launcher", "sweeper"):
        target = used.get(f"hydra.{section}._target_")
        if target is not None and target not in known:
            yield Problem(
                f"hydra.{section}._target_",
                "no plugin that is installed",
                found=str(target)[:60],
                do=f"leave it out, and name one: hydra/{section}=NAME",
            )


def _launched(used: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a launcher would import, and what would be a line more of a job's script."""
    for key, value in used.items():
        if not key.startswith("hydra.launcher."):
            continue
        if key.startswith("hydra.launcher.preload"):
            if str(value).partition(".")[0] not in _OWN_PACKAGES:
                yield Problem(
                    key,
                    "not a module of the platform's; no config names code to be imported",
                    found=repr(value)[:60],
                    allowed=", ".join(_OWN_PACKAGES),
                )
        elif isinstance(value, str) and not value.isprintable() and not _is_script(key):
            yield Problem(key, "not a text of one line", found=repr(value)[:60])


def _is_script(key: str) -> bool:
    return key.startswith("hydra.launcher.setup.")


def _script_lines(loader: Any, composed: Any, compose: Any) -> Iterator[Problem]:
    """Yield the lines of scripts that a config file brings, and the command line does not."""
    from hydra.types import RunMode

    brought = {key: found for key in _SCRIPT_LINES if (found := _at(composed, key))}
    if not brought:
        return
    given = composed.hydra.overrides
    words = [word for word in (*given.hydra, *given.task) if _is_of_scripts(word)]
    alone = (compose or type(loader)._load_configuration_impl)(
        loader,
        config_name=composed.hydra.job.config_name,
        overrides=words,
        run_mode=RunMode.RUN,
    )
    for key, found in brought.items():
        section = key.rpartition(".")[0]
        named = any(
            word.lstrip("+~").startswith((section, section.replace(".", "/"))) for word in words
        )
        # Without a word of its own, a file that has the place of the platform's launcher brings it.
        if not named or _at(alone, key) != found:
            also = " or name a file of hydra/launcher= that holds it" if "hydra" in key else ""
            yield Problem(
                key,
                "a config file brings what the script of a job would run",
                found=str(found)[:60],
                allowed="what the command line says",
                do=f"read it, and give {key}=… on the command line{also}",
            )


def _is_of_scripts(word: str) -> bool:
    return word.lstrip("+~").startswith(
        ("hydra/launcher", "hydra.launcher", "prepare.slurm.env_command", "hydra.searchpath")
    )


def _at(config: Any, key: str) -> Any:
    """Return the plain value at a dotted key as it is written; None where there is nothing."""
    from omegaconf import OmegaConf

    section, _, name = key.rpartition(".")
    node = OmegaConf.select(config, section)
    if not OmegaConf.is_dict(node) or name not in node or OmegaConf.is_missing(node, name):
        return None
    written = node._get_node(name)
    return OmegaConf.to_container(written) if OmegaConf.is_config(written) else written._value()


def _node(config: Any, key: str) -> Any:
    """Return the node at a dotted key as it is written; None where there is none."""
    for part in key.split("."):
        config = config._get_node(part) if config is not None else None
    return config


def _values(where: str, node: Any) -> dict[str, Any]:
    """Return the plain values below a node by their keys, each looked up by itself.

    A text that cannot be looked up yet, such as one that names a job's number, is left out.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    found: dict[str, Any] = {}
    if node is None:
        return found
    special = node._is_none() or node._is_missing() or node._is_interpolation()
    if OmegaConf.is_config(node) and not special:
        for key in list(node.keys() if OmegaConf.is_dict(node) else range(len(node))):
            found |= _values(f"{where}.{key}".lstrip("."), node._get_node(key))
        return found
    with contextlib.suppress(OmegaConfBaseException, LookupError, ValueError):
        value = node._get_parent()[node._key()]
        if OmegaConf.is_config(value):
            return _values(where, value)
        found[where] = value
    return found
