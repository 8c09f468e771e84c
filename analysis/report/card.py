"""Model and data card of a promoted schedule, in the format of model hubs.

The promotion's own card gives the reasons for the decision. This card goes with the weights: the
model, its training data with licences, its scores, its limits. It states what is not known yet, such
as the scores of a full run that has not been trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablations.errors import ConfigError, DataError, Problem
from ablations.markdown import escaped, in_code
from ablations.quantities import count
from ablations.record.checksums import require_unchanged
from ablations.yaml_files import read_yaml
from analysis.figures.theme import number
from analysis.frames import Frames, finals
from analysis.records import read_json_or_none
from analysis.report.post_training import after_section, stage_scores
from analysis.report.summaries import EFFECTS
from sweeps.promotion.schedule_text import learning_rate_sentence, schedule_rows

__all__ = ["model_card"]


def model_card(promotion: Path, runs_dir: Path | None = None) -> str:
    """Return the card of a promotion folder as Markdown.

    Args:
        promotion: Folder that `ablate promote` wrote.
        runs_dir: Folder of the records; the card has the scores of the full run if it is there.

    Raises:
        DataError: the folder contains no promotion.
    """
    record = read_json_or_none(Path(promotion) / "promotion.json")
    if not isinstance(record, Mapping):
        raise DataError(
            Problem(
                str(promotion),
                "not a promotion",
                allowed="a folder that `ablate promote` wrote, with a promotion.json",
            )
        )
    conf = Path(promotion) / "conf"
    require_unchanged(conf, "promote again")
    overrides = _yaml(conf / "experiment" / "promoted.yaml").get("source") or {}
    sources = {name: _source(name, overrides.get(name) or {}) for name in record["sources"]}
    model, training = (_yaml(conf / group / "promoted.yaml") for group in ("model", "training"))
    table = _full_scores(str(record["name"]), runs_dir)
    lines = [
        *_front_matter(record, sources),
        *_summary(record),
        *_model(record, model, training),
        *_data(record, sources),
        *_scores(record, table),
        *after_section(record, {} if table is None else stage_scores(table)),
        *_limits(record),
    ]
    return "\n".join(lines) + "\n"


def _yaml(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    found = read_yaml(path)
    return found if isinstance(found, Mapping) else {}


def _source(name: str, override: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a source's entry in the catalogue, updated with the promotion's overrides."""
    from ablations.config.schema import conf_dir, dump
    from ablations.data.catalogue import load_source

    try:
        return {**dump(load_source(name, [conf_dir() / "source"])), **override}
    except ConfigError:
        return override


def _front_matter(
    record: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the block that hubs index, with the known data sets."""
    repositories = [
        str(spec["origin"]["repo"])
        for spec in sources.values()
        if (spec.get("origin") or {}).get("repo")
    ]
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["ablations", "pretraining"]}
    if repositories:
        front["datasets"] = sorted(set(repositories))
    yield "---"
    yield yaml.safe_dump(front, sort_keys=False).rstrip()
    yield "---"
    yield ""


def _summary(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {escaped(record['name'])}"
    yield ""
    yield (
        f"{record['parameters'] / 1e6:,.1f}M parameters, {count(record['full']['total_tokens'], digits=3)} "
        f"tokens in {len(record['stages'])} stage{'s' if len(record['stages']) > 1 else ''}. The "
        f"mixture is **{escaped(record['candidate']['name'])}** of the study {in_code(record['study'])}."
    )
    yield ""
    yield f"> {escaped(record['verdict']['sentence'])}"
    yield ""


def _model(
    record: Mapping[str, Any], model: Mapping[str, Any], training: Mapping[str, Any]
) -> Iterator[str]:
    shape = ", ".join(
        f"{key.replace('num_', '').replace('_', ' ')} {model[key]}"
        for key in (
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "intermediate_size",
            "vocab_size",
            "rope_theta",
        )
        if key in model
    )
    yield "## Model and training"
    yield ""
    yield f"- Llama architecture: {shape or 'see the config'}"
    if "sequence_length" in training:
        yield f"- sequence length {training['sequence_length']}"
    yield f"- {learning_rate_sentence(record)}"
    yield f"- estimated at {record['cost']['flops']:.3g} FLOPs"
    yield ""


def _data(record: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    def describe(name: str) -> list[str]:
        spec = sources.get(name) or {}
        return [str(spec.get(key, "unknown")) for key in ("domain", "licence")]

    yield "## Data"
    yield ""
    yield "Shares of tokens, stage by stage; epochs over the whole schedule."
    yield ""
    yield from schedule_rows(record, about=("domain", "licence"), describe=describe)
    yield ""
    for name in record["sources"]:
        spec = sources.get(name) or {}
        about = " ".join(str(spec.get(key) or "") for key in ("url", "note")).strip()
        if about:
            yield f"- {escaped(name)}: {escaped(about)}"
    yield ""


def _scores(record: Mapping[str, Any], table: Any) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    if table is not None:  # the stages after the full run are runs of the same study
        later = [str(stage["name"]) for stage in record.get("after") or ()]
        table = table[~table["trial"].astype("str").isin(later)]
    if table is None or table.empty:
        yield "The full run has not been scored yet."
    else:
        yield "| task | metric | value | stderr | items |"
        yield "|---|---|--:|--:|--:|"
        for row in table.to_dict("records"):
            items = "–" if row["n"] != row["n"] else f"{int(row['n']):,}"
            yield (
                f"| {escaped(row['task'])} | {escaped(row['metric'])} | {number(row['value'])} "
                f"| {number(row['stderr'], 2)} | {items} |"
            )
    yield ""
    yield "Results of the proxies, pick and reference:"
    yield ""
    yield "| task | metric | reference | pick | effect |"
    yield "|---|---|--:|--:|---|"
    for row in record["verdict"]["tasks"]:
        yield (
            f"| {escaped(row['task'])} | {escaped(row['metric'])} | {number(row['reference'])} "
            f"| {number(row['pick'])} | {EFFECTS.get(row['effect'], row['effect'])} |"
        )
    yield ""
    yield from _pictures(record["verdict"].get("pictures") or ())


def _pictures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what pictures do to the answers of the proxies; nothing without tasks about pictures."""
    if not rows:
        return
    yield "Bits per byte that a picture saves its answer, and that another picture costs, with lower ends:"
    yield ""
    yield "| task | candidate | gain | over another picture | picture used |"
    yield "|---|---|--:|--:|---|"
    for row in rows:
        gains = [
            f"{number(row[key])} ({number(row[f'{key}_low'])})" for key in ("gain", "shuffled_gain")
        ]
        yield (
            f"| {escaped(row['task'])} | {escaped(row['candidate'])} | {' | '.join(gains)} "
            f"| {'yes' if row['used'] else 'no'} |"
        )
    yield ""


def _full_scores(name: str, runs_dir: Path | None) -> Any:
    """Return the scores of the last checkpoints of a full run and the stages after it; None without any."""
    if runs_dir is None:
        return None
    try:
        return finals(Frames.read(runs_dir, name).scores)
    except DataError:
        return None


def _limits(record: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if record.get("after"):
        yield "- The full run is a base model; the stages after it were tuned for their held-out rows alone."
        yield "- It can repeat text of its sources."
    else:
        yield (
            "- A base model: not aligned, not instruction-tuned, and it can repeat text of its sources."
        )
    yield "- The mixture was chosen on smaller proxies; its effect at this size is an extrapolation."
    for caveat in record["verdict"]["caveats"]:
        yield f"- {escaped(caveat)}"
    for gate in record["gates"]:
        if gate["override"]:
            text = f"The gate {gate['name'].replace('_', ' ')} was overridden: {gate['override']}"
            yield f"- {escaped(text)}"
