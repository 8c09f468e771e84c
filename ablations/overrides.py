"""What Hydra and OmegaConf say of a wrong override, said as the platform says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.errors import Problem, nearest

__all__ = ["explain"]


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> Problem:
    """One problem for an error of Hydra's, with the nearest key or option where a name is unknown."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return Problem(
            str(error.override),
            "not an override",
            found=_first_line(error),
            allowed="key=value, +key=value, ~key, group=option",
        )
    cause = error.__cause__ or error
    if isinstance(cause, MissingMandatoryValue):
        key = str(cause.full_key)
        return Problem(key, "missing", do=f"write {key}=…")
    text = "\n".join(str(part) for part in (error, error.__cause__) if part)
    found = re.findall(r"Could not override '([^']+)'|full_key: (\S+)", text)
    # The innermost key that is named is the one at fault.
    keys = sorted((first or second for first, second in found), key=len)
    if keys and ("not in struct" in text or "Could not override" in text):
        return _unknown_key(keys[-1], config_name, overrides, text)
    return Problem(keys[-1] if keys else "config", _first_line(cause))


def _missing_option(error: Any) -> Problem:
    """A group has no such option: the nearest one, and all of them."""
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    # A leading underscore marks what other options are made of.
    options = sorted(option for option in error.options or () if not option.startswith("_"))
    if not options:
        return Problem(missing or "config", "no such config", found=_first_line(error))
    close = nearest(name, options)
    return Problem(
        group,
        f"no option {name!r}",
        allowed=", ".join(options),
        do=f"did you mean {' or '.join(map(repr, close))}?" if close else None,
    )


def _unknown_key(key: str, config_name: str, overrides: Sequence[str], text: str) -> Problem:
    where, siblings = _first_unknown(key, config_name, overrides)
    if where is None:  # the key is there: the value is of a wrong type
        return Problem(key, "cannot take this value", found=_last_reason(text))
    name = where.rpartition(".")[2]
    close = nearest(name, siblings)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    open_ended = re.match(
        r"(mixture\.weights|schedule\.stages|source|evaluation\.tasks|promotion\.override)\b", where
    )
    adding = f"to add a new entry write +{where}=…" if open_ended else ""
    return Problem(
        where,
        "unknown key",
        allowed=", ".join(sorted(siblings)) or None,
        do="; ".join(part for part in (hint, adding) if part) or None,
    )


def _first_unknown(
    key: str, config_name: str, overrides: Sequence[str]
) -> tuple[str | None, list[str]]:
    """The shortest prefix of ``key`` that the config does not hold, and the keys beside it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.schema import conf_dir

    choices = [text for text in overrides if re.match(r"^[\w/]+=\w+$", text)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir())):
            config = compose(config_name, overrides=choices)
    except Exception:  # an override among them is wrong too; only the wording hangs on it
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir())):
            config = compose(config_name)
    node: Any = OmegaConf.to_container(config, resolve=False)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            known = [str(name) for name in node] if isinstance(node, Mapping) else []
            return ".".join(parts[: depth + 1]), known
        node = node[part]
    return None, []


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if error and str(error).strip() else repr(error)


def _last_reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "Could not"))]
    return kept[0] if kept else lines[0]
