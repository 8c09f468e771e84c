"""Write an export into a temporary sibling folder, then rename it; nothing is overwritten.

exports/<name>-<format>/
    README.md       instructions for loading, and a list of what is left out
    export.json     description of the export, for programs
    stages/         one set of files for each stage
    tokens/         the token files, if they are exported
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ablations import __version__
from ablations.data.store import TokenStore
from ablations.data.tokenizer import tokenizer_hash
from ablations.errors import ConfigError, DataError, Problem
from ablations.files import free_bytes, sync_folder, write_json, write_text
from ablations.markdown import escaped, in_code
from ablations.quantities import byte_size
from ablations.temporary import making_folder
from sweeps.exporters.export_plan import Export, ExportPlan, Source, TokensMode
from sweeps.exporters.formats import Format, format_named

__all__ = ["FORMAT", "write_export"]

FORMAT = 1
"""Version of export.json."""


def write_export(
    plan: ExportPlan,
    format_name: str,
    *,
    out: Path,
    tokens: str | None = None,
    root: str | None = None,
) -> tuple[Path, Export]:
    """Write one export.

    Args:
        plan: Schedule and sources to export.
        format_name: One of :data:`sweeps.exporters.formats.FORMATS`.
        out: Parent of the export's folder.
        tokens: copy, link or none; None = the format's first mode.
        root: Folder in which the export will be read; None = the folder in which it is written.

    Returns:
        The folder, and the export that was written.

    Raises:
        ConfigError: an unknown format, a mode that the format does not have, or an export of this
            name that exists already.
        DataError: a source that is not prepared, is damaged or has another tokenizer, or too little
            disk space; nothing is left behind.
    """
    kind = format_named(format_name)
    mode = _mode(kind, format_name, tokens)
    folder = out / f"{plan.name}-{format_name}"
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            Problem(str(folder), "exists already", do="remove it, or give another out=")
        )
    export = Export(
        plan=plan,
        format=format_name,
        sources=_sources(plan, required=mode != "none"),
        tokens=mode,
        root=_root(kind, format_name, root or folder.absolute().as_posix()),
        root_given=root is not None,
    )
    out.mkdir(parents=True, exist_ok=True)
    if mode == "copy":
        _require_space(out, export.sources)
    _build(folder, export, kind, format_name)
    return folder, export


def _root(kind: Format, format_name: str, root: str) -> str:
    """Return ``root``; raise ConfigError if the format's loader would not read it as one path."""
    if bad := sorted(set(root) & set(kind.forbidden)):
        raise ConfigError(
            Problem(
                "root",
                f"a path that {format_name} cannot read",
                found=repr(root),
                allowed=f"a path without {' '.join(map(repr, bad))}",
                do="give another root= or out=",
            )
        )
    return root


def _build(folder: Path, export: Export, kind: Format, format_name: str) -> None:
    """Fill a temporary sibling of ``folder`` and rename it."""
    with making_folder(folder) as building:
        try:
            _fill(building, export, kind, format_name)
            building.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            raise ConfigError(
                Problem(str(folder), "was created meanwhile", do="give another out=")
            ) from None
    sync_folder(folder.parent)


def _fill(folder: Path, export: Export, kind: Format, format_name: str) -> None:
    (folder / "stages").mkdir()
    if export.tokens != "none":
        (folder / "tokens").mkdir()
    kind.write(export, folder)
    made = {
        "format": FORMAT,
        "exporter": format_name,
        "version": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(folder / "export.json", {**made, **export.plain()})
    write_text(folder / "README.md", _readme(export, kind, format_name))


def _readme(export: Export, kind: Format, format_name: str) -> str:
    plan = export.plan
    (what, where), *_ = plan.origin.items()
    lines = [
        f"# {plan.name} for {format_name}",
        "",
        f"Exported from the {what} {in_code(str(where))}: {kind.help}.",
        "",
        "| stage | steps | samples | tokens | weights |",
        "|---|---|--:|--:|---|",
    ]
    for stage in plan.stages:
        weights = ", ".join(f"{name} {weight:.4%}" for name, weight in stage.weights.items())
        lines.append(
            f"| {stage.name} | {stage.first_step:,}–{stage.last_step:,} | {stage.samples:,} | "
            f"{stage.tokens:,} | {weights} |"
        )
    lines += ["", "## Loading it", "", kind.usage(export).strip(), ""]
    notes = [*plan.notes]
    if export.tokens == "none" and "copy" in kind.modes:
        notes.append("The tokens. The files above name where they are expected, source by source.")
    if notes:
        lines += ["## What is left out", "", *(f"- {escaped(note)}" for note in notes), ""]
    return "\n".join(lines)


def _mode(kind: Format, name: str, tokens: str | None) -> TokensMode:
    if tokens is None:
        return kind.modes[0]
    for mode in kind.modes:
        if mode == tokens:
            return mode
    raise ConfigError(
        Problem("tokens", f"not possible for {name}", found=tokens, allowed=" or ".join(kind.modes))
    )


def _sources(plan: ExportPlan, *, required: bool) -> dict[str, Source]:
    """Return the sources that a stage reads, with their stores if they are prepared."""
    found: dict[str, Source] = {}
    problems: list[Problem] = []
    for name in plan.sources:
        folder = plan.config.store_folder(name)
        if not required and not (folder / "manifest.json").is_file():
            tokens = float(plan.config.source[name].tokens_available)
            found[name] = Source(name=name, folder=None, manifest=None, tokens=tokens)
            continue
        try:
            manifest = TokenStore.open(folder).manifest
        except DataError as error:
            problems += error.problems
            continue
        found[name] = Source(
            name=name, folder=folder, manifest=manifest, tokens=float(manifest.tokens)
        )
    problems += _together(plan, found)
    if problems:
        if required:
            problems.append(
                Problem("tokens", "can be exported only from sound stores", do="or set tokens=none")
            )
        raise DataError(problems)
    return found


def _together(plan: ExportPlan, sources: Mapping[str, Source]) -> list[Problem]:
    """Return the problems that keep the stores from being read together."""
    slugs = [source.slug for source in sources.values()]
    problems = [
        Problem(name, "its folder name is another source's too", found=source.slug)
        for name, source in sources.items()
        if slugs.count(source.slug) > 1
    ]
    prepared = {n: s.manifest for n, s in sources.items() if s.manifest is not None}
    made = {n: (m.tokenizer_hash, m.token_bytes, m.eos_id) for n, m in prepared.items()}
    folder = Path(plan.config.data_dir) / "tokenizers" / plan.config.tokenizer.name
    if (folder / "tokenizer.json").is_file():
        hashes = {folder.name: tokenizer_hash(folder)} | {n: m[0] for n, m in made.items()}
    else:
        hashes = {n: m[0] for n, m in made.items()}
    if len(set(made.values())) > 1 or len(set(hashes.values())) > 1:
        found = ", ".join(f"{name}: {value[:12]}" for name, value in hashes.items())
        problems.append(Problem("sources", "tokenised with different tokenizers", found=found))
    window = plan.schedule.sequence_length + 1
    problems += [
        Problem(
            name,
            "none of its token files contains a whole window",
            found=f"at most {max((file.tokens for file in manifest.files), default=0)} tokens",
            allowed=f"{window} tokens or more (sequence length + 1)",
        )
        for name, manifest in prepared.items()
        if not any(file.tokens >= window for file in manifest.files)
    ]
    vocabulary = plan.config.model.vocab_size
    problems += [
        Problem(
            name,
            "token ids beyond the model's vocabulary",
            found=f"vocabulary of {manifest.vocab_size}",
            allowed=f"at most {vocabulary}",
        )
        for name, manifest in prepared.items()
        if manifest.vocab_size > vocabulary
    ]
    return problems


def _require_space(out: Path, sources: Mapping[str, Source]) -> None:
    needed = sum(
        source.manifest.tokens * source.manifest.token_bytes
        for source in sources.values()
        if source.manifest is not None
    )
    free = free_bytes(out)
    if needed > free:
        raise DataError(
            Problem(
                str(out),
                "too little disk space for the tokens",
                found=f"{byte_size(free)} free",
                allowed=f"{byte_size(needed)} or more",
                do="set tokens=link or tokens=none, or give another out=",
            )
        )
