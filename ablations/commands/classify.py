"""``ablate classify annotations=FILE``: train a classifier of quality, measure its skill, keep it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ablations.config.options import ClassifyOptions
from ablations.config.schema import conf_dir, validate
from ablations.data.catalogue import SourceSpec, load_catalogue, load_source
from ablations.errors import DataError, Problem
from ablations.terminal import table_console

if TYPE_CHECKING:
    from ablations.data.quality.annotations import Annotation
    from ablations.data.quality.classifiers import Kind
    from ablations.data.quality.skill import Evaluation

__all__ = ["annotations_of", "main", "sources_of"]

_FEWEST = 20


def main(config: Mapping[str, Any]) -> int:
    """Train, print the skill within each source, write the classifier; exit 1 if it may not filter."""
    from ablations.data.quality.annotations import split_annotations
    from ablations.data.quality.artifact import write_artifact
    from ablations.data.quality.classifiers import train_classifier
    from ablations.data.quality.skill import evaluate

    options = validate(
        ClassifyOptions, {k: v for k, v in config.items() if k not in ("config_dirs", "hydra")}
    )
    path = Path(options.annotations)
    every = annotations_of(path, config, Path(options.data_dir))
    training, heldout = split_annotations(every, options.heldout_share)
    if len(heldout) < _FEWEST:
        raise DataError(
            Problem(
                str(path),
                "too few annotations to measure a skill",
                found=f"{len(heldout)} held out of {len(every)}",
                allowed=f"at least {_FEWEST} held out",
                do="annotate more documents, or raise heldout_share",
            )
        )
    kind = _kind(options)
    classifier = train_classifier(kind, training, seed=options.seed, model=options.pretrained)
    scores = classifier.scores([a.text for a in heldout])
    evaluation = evaluate(heldout, scores, threshold=options.threshold, seed=options.seed)
    _print(evaluation)
    artifact = write_artifact(
        Path(options.out),
        classifier,
        kind=kind,
        model=options.pretrained,
        annotations=path,
        trained_on=0 if kind == "transformers" else len(training),
        evaluation=evaluation.plain(),
    )
    print(f"{options.out}: {kind}, version {artifact.version}; it {evaluation.sentence}")
    if not evaluation.usable:
        print("it is refused as a filter")
    return 0 if evaluation.usable else 1


def sources_of(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, SourceSpec]:
    """Return the sources called ``names``, of the user's config folders and the platform's."""
    folders = _source_folders(config)
    return {name: load_source(name, folders) for name in names}


def _source_folders(config: Mapping[str, Any]) -> list[Path]:
    added = [Path(path) for path in config.get("config_dirs", ())]
    return [conf_dir() / "source", *(path / "source" for path in reversed(added))]


def annotations_of(path: Path, config: Mapping[str, Any], data_dir: Path) -> list[Annotation]:
    """Return the annotations in ``path``; documents that are given by id are read from their sources."""
    from ablations.data.demo.packages import mirror_folder
    from ablations.data.quality.annotations import read_annotations
    from ablations.data.readers import Place
    from ablations.files import read_json_lines

    place = Place(downloads=data_dir / "downloads", mirror=mirror_folder(None))
    known = load_catalogue(_source_folders(config))
    by_id = {
        str(row["source"])
        for row in (read_json_lines(path) if path.is_file() else ())
        if not row.get("text") and row.get("source") in known
    }
    return read_annotations(path, sources_of(sorted(by_id), config), place)


def _kind(options: ClassifyOptions) -> Kind:
    if options.kind != "auto":
        return options.kind
    if options.pretrained is not None:
        return "transformers"
    return "fasttext" if importlib.util.find_spec("fasttext") else "linear"


def _print(evaluation: Evaluation) -> None:
    out = table_console()
    table = Table(
        title=f"skill on {evaluation.documents} held-out annotations", title_justify="left"
    )
    table.add_column("source", no_wrap=True)
    headings = ("documents", "Spearman", "F1, levels", f"F1, from {evaluation.threshold:g}")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in evaluation.sources:
        table.add_row(
            row.source,
            str(row.documents),
            *(_figure(v) for v in (row.spearman, row.macro_f1, row.threshold_f1)),
        )
    out.print(table)
    for row in evaluation.sources:
        print(f"{row.source}: annotated level (row) against predicted level (column)")
        for level, counts in enumerate(row.confusion):
            if any(counts):
                print(f"  {level}: " + " ".join(f"{count:>5}" for count in counts))
    for language in evaluation.languages:
        print(
            f"calibration, language {language.language}: {language.documents} documents, "
            f"bias {language.bias:+.2f}, mean error {language.error:.2f}"
        )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
