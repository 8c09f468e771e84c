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

    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return Problem(
            str(error.override),
            "not an override",
            found=_first_line(error),
            allowed="key=value, +key=value, ~key, group=option",
        )
    text = "\n".join(str(part) for part in (error, error.__cause__) if part)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key and ("not in struct" in text or "Could not override" in text):
        return _unknown_key(key[1], config_name, overrides, text)
    group = re.search(r"Could not override '?([\w/@.]+)'?\.?\s*No match in the defaults list", text)
    if group:
        return _unknown_key(group[1], config_name, overrides, text)
    where = key[1] if key else "config"
    return Problem(where, _first_line(error.__cause__ or error))


def _missing_option(error: Any) -> Problem:
    """A group has no such option: the nearest one, and all of them."""
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    options = sorted(error.options or ())
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
    siblings = _siblings(key, config_name, overrides)
    if key.rpartition(".")[2] in siblings:  # the key is there: the value is of a wrong type
        return Problem(key, "cannot take this value", found=_last_reason(text))
    close = nearest(key.rpartition(".")[2], siblings)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    adding = f"to add a new entry write +{key}=…" if "weights" in key or "source" in key else ""
    return Problem(
        key,
        "unknown key",
        allowed=", ".join(sorted(siblings)) or None,
        do="; ".join(part for part in (hint, adding) if part) or None,
    )


def _siblings(key: str, config_name: str, overrides: Sequence[str]) -> list[str]:
    """The keys beside ``key`` in the config as it is without the overrides that set plain values."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from ablations.schema import conf_dir

    chosen = [
        text for text in overrides if re.match(r"^(experiment|model|schedule|mixture)=", text)
    ]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir())):
            config = compose(config_name, overrides=chosen)
        parent: Any = OmegaConf.to_container(config, resolve=False)
        for part in key.split(".")[:-1]:
            parent = parent[part]
        return [str(name) for name in parent] if isinstance(parent, Mapping) else []
    except Exception:  # only the wording of an error message hangs on it
        return []


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if error and str(error).strip() else repr(error)


def _last_reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "Could not"))]
    return kept[0] if kept else lines[0]
