"""Run ``ablate import``: read a published file, list its oddities, write configs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.terminal import override_word

if TYPE_CHECKING:
    import yaml

    from sweeps.commands.command_options import ImportOptions
    from sweeps.picture_mixtures.published_file import Share

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Import one file; print its stages or shares, and its oddities."""
    # Imported here: `--help` and `--cfg` need neither.
    from sweeps.commands.command_options import ImportOptions, read_options
    from sweeps.nanotron_files.foreign_yaml import read_text, root_node
    from sweeps.picture_mixtures.published_file import holds_pictures

    options = read_options(ImportOptions, config, alone=True)
    text = read_text(Path(options.file))
    root = root_node(text, options.file)
    if holds_pictures(root):
        return _import_mixture(options, root, text)
    return _import_nanotron(options)


def _import_nanotron(options: ImportOptions) -> int:
    """Import a file of nanotron."""
    from ablations.errors import ConfigError, Problem
    from sweeps.nanotron_files.chain import slug
    from sweeps.nanotron_files.import_published import import_file, write_import
    from sweeps.nanotron_files.recorded_schema import BRANCHES
    from sweeps.nanotron_files.semantics import folders_of

    path, branch = Path(options.file), options.nanotron
    if branch not in BRANCHES:
        raise ConfigError(
            Problem(
                "nanotron", "no branch that is known", found=branch, allowed=", ".join(BRANCHES)
            )
        )
    imported = import_file(path, slug(options.name or path.stem), branch)
    out = write_import(imported, Path(options.out) / imported.name)
    file = imported.file
    print(f"{out}: {len(file.data_stages)} stages, {file.tokens.train_steps:,} steps of ", end="")
    print(f"{file.tokens_per_step:,} tokens")
    for stage, steps in zip(file.data_stages, file.stage_steps(), strict=True):
        first = stage.start_training_step
        print(f"  {stage.name}: steps {first:,} to {first + steps - 1:,}, ", end="")
        print(f"{len(folders_of(stage))} folders")
    for oddity in imported.oddities:
        print(f"  odd: {oddity}")
    _print_next(out, imported.name)
    return 0


def _import_mixture(options: ImportOptions, root: yaml.Node | None, text: str) -> int:
    """Import a mixture of pictures, videos and text."""
    from sweeps.nanotron_files.chain import slug
    from sweeps.picture_mixtures.import_mixture import import_mixture, write_mixture
    from sweeps.picture_mixtures.published_file import read_mixture

    mixture = read_mixture(root, text, options.file)
    name = slug(options.name or Path(options.file).stem)
    imported = import_mixture(mixture, options.file, name)
    out = write_mixture(imported, Path(options.out) / imported.name)
    print(f"{out}: {len(mixture.datasets)} data sets, {mixture.rows:,} rows of an epoch")
    _print_shares(imported.by_modality)
    print("by category:")
    _print_shares(imported.by_category)
    for remark in imported.remarks:
        print(f"  open: {remark}")
    _print_next(out, imported.name)
    return 0


def _print_shares(parts: list[Share]) -> None:
    width = max(len(one.label) for one in parts)
    for one in parts:
        sets = f"{one.datasets} data set{'s' if one.datasets > 1 else ''}"
        print(f"  {one.label:{width}} {one.share:7.2%} {one.rows:>12,} rows, {sets}")


def _print_next(out: Path, name: str) -> None:
    conf = shlex.quote(f"{out}/conf")
    print(f"next: ablate plan --config-dir {conf} {override_word('experiment', name)}")
