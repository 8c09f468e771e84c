"""``ablate annotate sources=[web]``: draw documents to be rated, or check a file of ratings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.config.options import AnnotateOptions
from ablations.config.schema import validate
from ablations.errors import ConfigError, DataError, Problem

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Write documents to ``out``, to be rated; where the file exists, print what it holds."""
    options = validate(
        AnnotateOptions, {k: v for k, v in config.items() if k not in ("config_dirs", "hydra")}
    )
    out = Path(options.out)
    if out.exists():
        _print_ratings(out, config, options)
        return 0
    if not options.sources:
        raise ConfigError(Problem("sources", "names no source", do="sources=[web,wiki]"))
    rows = list(_drawn(config, options))
    from ablations.files import write_text

    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if options.own_scores:
        print(f"{out}: {len(rows)} documents with the scores of their sources; next:")
    else:
        print(f"{out}: {len(rows)} documents; write a score from 0 to 5 into each row, then")
    print(f"  ablate classify annotations={out}")
    return 0


def _drawn(config: Mapping[str, Any], options: AnnotateOptions) -> Any:
    from ablations.commands.classify import sources_of
    from ablations.data.demo.packages import mirror_folder
    from ablations.data.quality.annotations import sample_documents
    from ablations.data.readers import Place

    place = Place(downloads=Path(options.data_dir) / "downloads", mirror=mirror_folder(None))
    for name, spec in sources_of(options.sources, config).items():
        drawn = sample_documents(name, spec, place, count=options.documents, seed=options.seed)
        for text in drawn:
            shown = text.text[: options.characters]
            score = text.score if options.own_scores else None
            if options.own_scores and score is None:
                raise DataError(_no_label(name, text.id))
            yield {"source": name, "id": text.id, "text": shown, "language": None, "score": score}


def _no_label(source: str, document: str) -> Problem:
    return Problem(
        "own_scores",
        f"the source {source!r} has a document without a score",
        found=document,
        do=f"set source.{source}.score_column, or leave own_scores out and rate the documents",
    )


def _print_ratings(out: Path, config: Mapping[str, Any], options: AnnotateOptions) -> None:
    from ablations.commands.classify import annotations_of
    from ablations.files import read_json_lines

    total = sum(1 for _ in read_json_lines(out))
    found = annotations_of(out, config, Path(options.data_dir))
    print(f"{out}: {len(found)} of {total} documents have a score")
    for source in dict.fromkeys(a.source for a in found):
        counts = Counter(round(a.score) for a in found if a.source == source)
        spread = ", ".join(f"{level}: {counts[level]}" for level in range(6))
        print(f"  {source}: {spread}")
