"""Folders and weights of a stage, and names of sources made from folders."""

from __future__ import annotations

import re

from ablations.errors import ConfigError, Problem
from sweeps.nanotron_files.sections import StageSection, TokenFolders

__all__ = ["folders_of", "plain_word", "source_name", "source_names"]

_GENERIC = {"", "standard", "tokenized", "tokenised", "data", "train", "merged", "shuffled"}
"""Last parts of a folder's path that do not name the source."""

_MOST_LETTERS = 60

_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
"""Words that YAML or Hydra do not read as text."""


def folders_of(stage: StageSection) -> dict[str, float]:
    """Return folder → weight of a stage, as written; equal weights if it has none.

    Raises:
        ConfigError: the stage does not read token folders, or names one twice.
    """
    where = f"data_stages.{stage.name}"
    dataset = stage.data.dataset
    if not isinstance(dataset, TokenFolders):
        raise ConfigError(
            Problem(
                where,
                "reads text that is tokenised on the fly, or random tokens",
                allowed="dataset_folder with dataset_weights",
                do="tokenise it first: a mixture needs token counts",
            )
        )
    folders = dataset.dataset_folder
    if isinstance(folders, str):
        return {folders: 1.0}
    if len(set(folders)) != len(folders):
        twice = sorted({folder for folder in folders if folders.count(folder) > 1})
        raise ConfigError(Problem(where, "a folder is listed twice", found=", ".join(twice)))
    weights = dataset.dataset_weights or (1.0,) * len(folders)
    return dict(zip(folders, weights, strict=True))


def source_name(folder: str) -> str:
    """Return the name of a source: the last part of its folder's path that is not generic.

    >>> source_name("s3://x/llama_tokenized-global-chunks/fineweb-edu/fineweb-edu/")
    'fineweb_edu'
    >>> source_name("s3://x/llama_tokenized_4097/megamath-web-pro/standard/")
    'megamath_web_pro'
    """
    parts = [part for part in re.split(r"[/:]+", folder) if part]
    specific = [part for part in parts if part.lower() not in _GENERIC] or parts or ["source"]
    name = re.sub(r"[^a-z0-9]+", "_", specific[-1].lower().replace("c++", "cpp")).strip("_")
    return plain_word(name, "source")


def plain_word(name: str, before: str) -> str:
    """Return a lower-case name as a key that YAML reads as text, after ``before`` if necessary.

    It is cut to ``_MOST_LETTERS``, because it becomes the name of a file and a folder.
    """
    name = name[:_MOST_LETTERS].rstrip("_")
    word = name[:1].isalpha() and name not in _NOT_TEXT
    return name if word else f"{before}_{name}".rstrip("_")


def source_names(folders: list[str]) -> dict[str, str]:
    """Return folder → unique source name; folders of the same name get their parent's name in front."""
    names = {folder: source_name(folder) for folder in dict.fromkeys(folders)}
    taken: dict[str, str] = {}
    for folder, name in names.items():
        parent = source_name("/".join(folder.rstrip("/").split("/")[:-1]) or "source")
        unique, count = name, 2
        while unique in taken:
            unique = f"{parent}_{name}" if count == 2 else f"{parent}_{name}_{count}"
            count += 1
        taken[unique] = folder
        names[folder] = unique
    return names
