"""Card of a promotion: one page for the team that decides about the full run.

It contains the decision and its evidence, the full run and its cost, the gates with their overrides, and
a list of things to watch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.markdown import escaped, in_code
from ablations.quantities import count
from sweeps.promotion.schedule_text import hours_words, learning_rate_sentence, schedule_rows

__all__ = ["card", "watch_list"]


def card(record: Mapping[str, Any]) -> str:
    """Return the content of ``promotion.json`` for people, as Markdown."""
    lines = [
        *_head(record),
        *_prediction(record),
        *_gates(record),
        *_schedule(record),
        *_chain(record),
        *_after(record),
        *_cost(record),
        "## What to watch",
        "",
        *(f"- [ ] {escaped(item)}" for item in record["watch"]),
        "",
        *_provenance(record),
    ]
    return "\n".join(lines) + "\n"


def _head(record: Mapping[str, Any]) -> Iterator[str]:
    verdict, full = record["verdict"], record["full"]
    yield f"# {record['name']}"
    yield ""
    yield (
        f"**{escaped(record['candidate']['name'])}** of study {in_code(record['study'])} is promoted to "
        f"**{full['name']}**: {count(full['total_tokens'], digits=3)} tokens, "
        f"{record['parameters'] / 1e6:,.1f}M parameters."
    )
    yield ""
    yield f"> {escaped(verdict['sentence'])}"
    yield ""
    for caveat in verdict["caveats"]:
        yield f"- {escaped(caveat)}"
    if verdict["caveats"]:
        yield ""


_SHOWN = 12
"""Number of tasks of the prediction on the card; all of them are in ``promotion.json``."""


def _prediction(record: Mapping[str, Any]) -> Iterator[str]:
    found = record.get("prediction")
    if not found:
        yield "No prediction is sealed: there is no baseline to compare the full run with."
        yield ""
        return
    gap, factor = found["gap"], found["factor"]
    yield "## Prediction (sealed before the full run)"
    yield ""
    yield (
        f"{escaped(record['candidate']['name'])} minus {escaped(found['baseline'])}, both at full size; "
        "positive = better; 90% intervals of one full run each."
    )
    yield ""
    yield "| | proxies | expected | 90% interval |"
    yield "|---|--:|--:|--:|"
    tasks = sorted((t for t in found["tasks"] if t["signal"]), key=lambda t: -abs(t["mean"]))
    for row in [*filter(None, [found["score"]]), *tasks[:_SHOWN]]:
        interval = "unknown" if row["low"] is None else f"{row['low']:+.3g} to {row['high']:+.3g}"
        name = escaped(f"{row['task']}/{row['metric']}") if row["metric"] else "**score**"
        yield f"| {name} | {row['proxies']:+.3g} | {row['mean']:+.3g} | {interval} |"
    yield ""
    silent = len(found["tasks"]) - len(tasks)
    if len(tasks) > _SHOWN:
        yield f"- {len(tasks) - _SHOWN} more tasks in `promotion.json`"
    if silent:
        yield f"- tasks left out because their noise is larger than the difference: {silent}"
    for key, why in found["not_comparable"].items():
        yield f"- not comparable: {escaped(key)}: {escaped(why)}"
    if found["added"]:
        added = ", ".join(
            f"{escaped(name)} ({share:.1%})" for name, share in found["added"].items()
        )
        yield f"- read by the full run and by no proxy, alike in both full runs: {added}"
    yield (
        f"- scale: {gap['tokens']:.3g} times the tokens, {gap['parameters']:.3g} times the parameters; "
        f"differences are multiplied by {factor['mean']:.2f} ± {factor['sd']:.2f}, and by "
        f"{gap['share']:.2f} ± {gap['share_sd']:.2f}, the share of the difference in mixture that the "
        "full run keeps"
    )
    if found["study"] != record["study"]:
        yield f"- carried from study {found['study']}, which judged the same pair nearer the target"
    for one in found["measured"]:
        yield f"- measured: slope {one['slope']:.2f} ± {one['error']:.2f} of {escaped(one['where'])}"
    yield f"- {escaped(found['prior'])}"
    yield ""


def _gates(record: Mapping[str, Any]) -> Iterator[str]:
    yield "## Gates"
    yield ""
    yield "| gate | state | evidence |"
    yield "|---|---|---|"
    for gate in record["gates"]:
        state = gate["state"] + (" **overridden**" if gate["override"] else "")
        sentence = escaped(gate["sentence"])
        why = f" — overridden: {escaped(gate['override'])}" if gate["override"] else ""
        yield f"| {gate['name'].replace('_', ' ')} | {state} | {sentence}{why} |"
    yield ""


def _schedule(record: Mapping[str, Any]) -> Iterator[str]:
    stages = record["stages"]
    yield "## Schedule"
    yield ""
    yield from schedule_rows(record)
    steps = [f"{stage['first_step']:,}–{stage['last_step']:,}" for stage in stages]
    yield f"| **steps** | {' | '.join(steps)} | | |"
    yield f"| **tokens** | {' | '.join(count(s['tokens'], digits=3) for s in stages)} | | |"
    yield ""
    yield learning_rate_sentence(record)
    yield ""


def _chain(record: Mapping[str, Any]) -> Iterator[str]:
    yield "## How to train it"
    yield ""
    yield "With the platform's own trainer (resumes in any stage, scores, audits, compares):"
    yield ""
    yield "    bash launch/ablate.sh"
    yield ""
    if "baseline" in record:
        yield (
            f"The same run on the baseline's mixture ({record['baseline']['name']}): without it the "
            "prediction above is never put to the test:"
        )
        yield ""
        yield "    ablate run --config-dir conf experiment=baseline"
        yield ""
    yield "With nanotron's main branch, one file for each stage (`launch/submit.sh` for Slurm):"
    yield ""
    yield "| file | trains steps | starts from |"
    yield "|---|---|---|"
    for link in record["chain"]:
        start = link["resume"] or "scratch"
        yield f"| `nanotron/{link['file']}` | {link['first_step']:,}–{link['last_step']:,} | {start} |"
    yield ""


def _after(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the stages after the full run, each with the verdict that chose it."""
    stages = record.get("after") or ()
    if not stages:
        return
    yield "## After the full run"
    yield ""
    yield "| stage | study | candidate | shares | samples | learning rate |"
    yield "|---|---|---|---|--:|--:|"
    for stage in stages:
        shares = ", ".join(f"{escaped(n)} {share:.1%}" for n, share in stage["weights"].items())
        yield (
            f"| {escaped(stage['name'])} ({stage['method']['kind']}) | {in_code(stage['study'])} "
            f"| {escaped(stage['candidate'])} | {shares} | {stage['samples']:,} | {stage['peak_lr']:g} |"
        )
    yield ""
    for stage in stages:
        yield f"- {escaped(stage['name'])}: {escaped(stage['verdict'])}"
    yield ""
    yield "The full run and these stages, by one command (skips what is done):"
    yield ""
    yield "    ablate run --config-dir conf experiment=chain"
    yield ""
    yield (
        "With TRL alone: `launch/post.sh` and the files of `trl/`, or, with `HANDBOOK` set to a checkout of "
        "alignment-handbook, those of `handbook/`."
    )
    yield ""


def _cost(record: Mapping[str, Any]) -> Iterator[str]:
    cost, price = record["cost"], record["cost"]["price"]
    yield "## Cost (an estimate)"
    yield ""
    yield (
        f"{cost['flops']:.3g} FLOPs; {hours_words(cost['device_hours'])} of one device; "
        f"{hours_words(24.0 * cost['wall_days'])} on all {cost['devices']}; "
        f"{cost['usd']:,.0f} dollars."
    )
    yield ""
    yield (
        f"Assumed: {escaped(price['device'])}, {price['peak_tflops']:g} TFLOP/s peak, "
        f"MFU {price['mfu']:.0%}, "
        f"{price['usd_per_device_hour']:g} dollars per device-hour, {price['overhead']:.0%} overhead. "
        "FLOPs per token: 6 per matrix parameter and 12 · layers · width · length for attention."
    )
    yield ""
    hours = ", ".join(
        f"{name} {hours_words(value)}" for name, value in record["stage_hours"].items()
    )
    yield f"Of one device, by stage: {hours}."
    yield ""


def _provenance(record: Mapping[str, Any]) -> Iterator[str]:
    made = record["provenance"]
    yield "## Provenance"
    yield ""
    yield f"- by {escaped(made['by'])} on {escaped(made['host'])}, {made['created']}"
    yield f"- command: {in_code(shlex.join(made['command']))}"
    yield f"- code: {made['git_commit'] or 'not a git checkout'}"
    for run in made["runs"]:
        yield f"- run `{run['name']}`, fingerprint {run['fingerprint'][:12]}"
    yield "- everything above, for programs: `promotion.json`; the verdict: `evidence/verdict.json`"


def watch_list(record: Mapping[str, Any]) -> list[str]:
    """Return the things to watch while the full run trains."""
    stages = record["stages"]
    rate = record["learning_rate"]
    # Older records have no key for the tail.
    decay_from = rate["total_steps"] - rate["decay_steps"] - rate.get("tail_steps", 0)
    items = [
        "loss at every stage's first 100 steps: a step up is expected where the mixture changes; "
        "one that lasts for more than a few hundred steps is not",
        "loss spikes (events of kind spike): rewind and skip only with a note",
        "realised tokens per source against the schedule, at every hand-over",
    ]
    if rate["decay_steps"]:
        items.append(
            f"the learning rate starts to fall after step {decay_from:,}; loss should fall with it"
        )
    for stage in stages[1:]:
        items.append(
            f"before stage {stage['name']}: the checkpoint of step {stage['first_step'] - 1:,} "
            "exists and is complete"
        )
    tight = [
        f"{name} ({row['epochs']:.1f} epochs)"
        for name, row in record["sources"].items()
        if row["epochs"] is not None and row["epochs"] > 0.8 * record["epoch_cap"]
    ]
    if tight:
        items.append(f"memorisation of the most repeated sources: {', '.join(tight)}")
    worse = [row["task"] for row in record["verdict"]["tasks"] if row["effect"] == "pays"]
    if worse:
        items.append(f"the tasks that got worse in the proxies: {', '.join(worse)}")
    items.append(
        "a context extension is a new run: nanotron counts read tokens from zero in it, so give it other "
        "files of its sources, or accept that their beginnings are read again"
    )
    overridden = [gate["name"] for gate in record["gates"] if gate["override"]]
    if overridden:
        items.append(f"what the overridden gates would have caught: {', '.join(overridden)}")
    return items
