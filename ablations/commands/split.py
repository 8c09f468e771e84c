"""``ablate split source=… into=16``: find topics in a source, and write each as a source of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ablations.commands.classify import sources_of
from ablations.config.options import SplitOptions
from ablations.config.schema import conf_dir, validate
from ablations.data.catalogue import SourceSpec, load_catalogue
from ablations.errors import ConfigError, Problem
from ablations.files import write_text
from ablations.yaml_files import read_yaml

if TYPE_CHECKING:
    from ablations.data.quality.topics import TopicModel

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Fit topics, write the artifact and the sources, print what they are."""
    import numpy as np

    from ablations.data.demo.packages import mirror_folder
    from ablations.data.quality.annotations import sample_documents
    from ablations.data.quality.artifact import write_artifact
    from ablations.data.quality.topics import agreement, fit_topics
    from ablations.data.readers import Place

    options = validate(
        SplitOptions, {k: v for k, v in config.items() if k not in ("config_dirs", "hydra")}
    )
    name = str(options.name)
    spec = sources_of([name], config)[name]
    _require_whole(name, spec)
    out = Path(options.out)
    _require_free(out, name)
    place = Place(downloads=Path(options.data_dir) / "downloads", mirror=mirror_folder(None))
    drawn = sample_documents(name, spec, place, count=options.documents, seed=options.seed)
    texts = [text.text for text in drawn]
    model = fit_topics(texts, options.into, seed=options.seed)
    topics = model.scores(texts)
    other = fit_topics(texts, options.into, seed=options.seed + 1).scores(texts)
    sizes = np.bincount(
        topics.astype(int), weights=[len(t.encode()) for t in texts], minlength=options.into
    )
    shares = (sizes / sizes.sum()).tolist()
    agreed = agreement(topics, other)
    sentence = f"finds {options.into} topics; another seed agrees by {agreed:.2f} (1 = the same)"
    folder = (out / "classifiers" / f"{name}_topics").absolute()
    write_artifact(
        folder,
        model,
        kind="topics",
        model=None,
        annotations=None,
        trained_on=len(texts),
        evaluation={"usable": True, "sentence": sentence, "agreement": agreed, "shares": shares},
    )
    names = _write_sources(out, config, options, spec, folder, model, shares)
    print(f"{name}: {sentence}")
    for topic, share in zip(names, shares, strict=True):
        print(f"  {share:6.1%}  {topic}")
    print(f"sources in {out / 'source'}; ablate prepare --config-dir {out} tokenises once for all")
    return 0


def _require_whole(name: str, spec: SourceSpec) -> None:
    """Refuse a source that is cut by another score already."""
    scored = spec.classifier is not None or spec.score_column is not None
    if scored or spec.part is not None:
        raise ConfigError(
            Problem(f"source.{name}", "has scores or buckets already", do="split a source without")
        )


def _require_free(out: Path, source: str) -> None:
    """Refuse a folder with sources of an earlier split: topics are numbered anew."""
    there = sorted((out / "source").glob(f"{source}_*.yaml"))
    if there:
        raise ConfigError(
            Problem("out", "holds an earlier split", found=there[0], do="name another folder")
        )


def _write_sources(
    out: Path,
    config: Mapping[str, Any],
    options: SplitOptions,
    spec: SourceSpec,
    folder: Path,
    model: TopicModel,
    shares: Sequence[float],
) -> list[str]:
    """Write the source of the whole, and one for each topic; return the names of the topics."""
    folders = [conf_dir() / "source", *(Path(p) / "source" for p in config.get("config_dirs", ()))]
    stored = read_yaml(load_catalogue(folders)[str(options.name)]) or {}
    rounded = [round(share, 6) for share in shares]
    rounded[-1] = round(1.0 - sum(rounded[:-1]), 6)
    whole = f"{options.name}_topics"
    common = {
        **stored,
        "classifier": str(folder),
        "buckets": {"edges": list(range(1, options.into)), "shares": rounded},
    }
    names = [f"{options.name}_{name}" for name in model.names()]
    (out / "source").mkdir(parents=True, exist_ok=True)
    for bucket, (name, share) in enumerate(zip(names, shares, strict=True)):
        part = {
            **common,
            "tokens_available": max(1, round(spec.tokens_available * share)),
            "part": {"of": whole, "bucket": bucket},
        }
        _write(out / "source" / f"{name}.yaml", f"Topic {bucket} of {whole}.", part)
    # Last: a split whose whole is there is complete.
    _write(out / "source" / f"{whole}.yaml", f"{options.name}, cut into topics.", common)
    return names


def _write(path: Path, remark: str, values: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    write_text(path, f"# {remark} Written by `ablate split`.\n{text}")
