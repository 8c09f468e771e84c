"""Run ``ablate import``: read a published nanotron file, list its oddities, write configs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.terminal import override_word

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Import one file; print its stages and its oddities."""
    # Imported here: `--help` and `--cfg` need neither.
    from ablations.errors import ConfigError, Problem
    from sweeps.commands.command_options import ImportOptions, read_options
    from sweeps.nanotron_files.chain import slug
    from sweeps.nanotron_files.import_published import import_file, write_import
    from sweeps.nanotron_files.recorded_schema import BRANCHES
    from sweeps.nanotron_files.semantics import folders_of

    options = read_options(ImportOptions, config, alone=True)
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
    conf = shlex.quote(f"{out}/conf")
    print(f"next: ablate plan --config-dir {conf} {override_word('experiment', imported.name)}")
    return 0
