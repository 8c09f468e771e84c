"""The config of a run: what Hydra composed, checked and made of frozen dataclasses.

    conf/ + overrides ──Hydra──▶ plain values ──▶ load() ──▶ RunConfig ──▶ everything below

:func:`load` reports every problem of a config at once. Sources are looked up by name: a mixture or a
stage that names ``wiki`` reads ``conf/source/wiki.yaml``, and ``+source.wiki.<field>=`` overrides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ablations.config.bucket_sources import Stores, expand, parents_of
from ablations.config.method_problems import method_problems
from ablations.config.options import CarryOut
from ablations.config.removed import without_removed
from ablations.data.buckets import bucket_folder
from ablations.data.catalogue import SourceSpec, load_catalogue
from ablations.data.manifest import store_folder
from ablations.data.rows.row_specs import RowKind
from ablations.data.shards import with_shards
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import ConfigError, Problem, unknown_name
from ablations.evaluation.specs import EvaluationSpec
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.mixture.specs import MixtureSpec, ScheduleSpec
from ablations.ranges import Interval, Seed
from ablations.record.identity import folder_problem
from ablations.training.batching import training_problems
from ablations.training.method import MethodSpec
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.validation import validate
from ablations.yaml_files import read_yaml, shown_path

__all__ = [
    "RunConfig",
    "WarmStartSpec",
    "carry_out",
    "conf_dir",
    "dump",
    "load",
    "named_sources",
    "source_values",
    "validate",
]

_FORBID: dict[str, Any] = {"extra": "forbid"}

_OTHER_KEYS = frozenset(
    (
        *("search", "hydra", "checkpoint", "out", "progress", "experiment", "promotion", "prepare"),
        *("json", "retry", "price"),
        *(
            "config_dirs",
            "workers",
            "force",
            "mirror",
            "slurm",
            "contamination",
            "program",
            "after",
        ),
    )
)
"""Top-level keys of a composed config that belong to commands or to the sweeper, not to the run."""


@dataclass(frozen=True, kw_only=True)
class WarmStartSpec:
    """Begin from a checkpoint of another run instead of from random weights."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    checkpoint: str | None = None
    """Folder of a training checkpoint; null = random weights. sft, dpo and vlm need one, and take a
    transformers folder or the name of a model on the hub too."""
    load_optimizer: bool = True
    """Carry the optimiser's moments over; FineMath's published arms did not."""
    first_step: Annotated[int, Interval(ge=0)] | None = None
    """Step of the schedule at which training goes on; null = the step of the checkpoint."""

    def __post_init__(self) -> None:
        if self.first_step is not None and self.checkpoint is None:
            raise ConfigError(
                Problem(
                    "warm_start.first_step",
                    "there is no checkpoint to go on from",
                    found=self.first_step,
                    do="give warm_start.checkpoint, or leave it null",
                )
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Config of one run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    study: str
    """Folder of the record under ``runs_dir``: one study, one question."""
    trial: str | None = None
    """Name of the mixture under test within the study; null = eight digits of the fingerprint."""
    seed: Seed = 0
    """Seeds the initial weights and the order of the data."""
    runs_dir: str = "runs"
    """Folder of the records; not part of the fingerprint."""
    data_dir: str = "data"
    """Folder of the prepared token stores; not part of the fingerprint."""
    source: Mapping[str, SourceSpec]
    """Name → source, for every source that a stage names."""
    tokenizer: TokenizerSpec
    """Tokenizer of every source."""
    mixture: MixtureSpec
    """The mixture of every stage that does not bring its own."""
    schedule: ScheduleSpec
    """Stages, budgets and learning rate."""
    model: ModelSpec
    """The proxy model."""
    training: TrainingSpec
    """Batch, optimiser, precision, checkpoints."""
    execution: ExecutionSpec = field(default_factory=ExecutionSpec)
    """Device, ranks and memory; not part of the fingerprint."""
    method: MethodSpec = field(default_factory=MethodSpec)
    """Aim of the training: texts, conversations, preferences or pictures."""
    evaluation: EvaluationSpec
    """Tasks and the score."""
    warm_start: WarmStartSpec = field(default_factory=WarmStartSpec)
    """The checkpoint to begin from, if any."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Free notes that a study keeps with the run; not part of the fingerprint."""

    def store_folder(self, source: str) -> Path:
        """Return the folder of the token store of ``source``; it need not exist yet."""
        spec = self.source[source]
        whole = self.stores.folder(spec.part.of if spec.part else source, spec)
        return whole / bucket_folder(spec.part.bucket) if spec.part else whole

    def store_name(self, source: str) -> str:
        """Return the name of ``source`` as a folder of stores: of a bucket ``web/b3``."""
        part = self.source[source].part
        return f"{part.of}/{bucket_folder(part.bucket)}" if part else source

    @property
    def stores(self) -> Stores:
        """Return the place of the token stores."""
        return Stores(Path(self.data_dir), self.tokenizer.name)

    @property
    def whole_sources(self) -> dict[str, SourceSpec]:
        """Return the sources without buckets, which are parts of one of them: what is prepared."""
        return {name: spec for name, spec in self.source.items() if spec.part is None}

    @property
    def read_sources(self) -> dict[str, SourceSpec]:
        """Return the sources without those that only their buckets are read of."""
        divided = {spec.part.of for spec in self.source.values() if spec.part}
        return {name: spec for name, spec in self.source.items() if name not in divided}

    def build_schedule(self) -> Schedule:
        """Return the schedule in whole steps."""
        return self.schedule.build(
            self.mixture,
            sequence_length=1 if self.method.of_rows else self.training.sequence_length,
            batch_size=self.training.batch_size,
        )

    def guard_folder(self, source: str) -> Path:
        """Return the store of a source of the pretraining, whose held-out text is scored as a guard."""
        tokenizer = self.tokenizer.base or self.tokenizer.name
        return store_folder(Path(self.data_dir), tokenizer, source)

    def scored_sources(self) -> dict[str, RowKind | None]:
        """Return the sources whose held-out part is scored, each with the kind of its rows; None = text."""
        kinds: dict[str, RowKind | None] = {
            name: rows.kind if (rows := self.source[name].rows) else None
            for name in self.build_schedule().sources
        }
        return {**kinds, **dict.fromkeys(self.evaluation.guards)}

    def build_learning_rate(self, schedule: Schedule) -> LearningRate:
        """Return the learning rate over ``schedule``."""
        return self.schedule.lr.build(peak=self.training.peak_lr, schedule=schedule)


def conf_dir() -> Path:
    """Return the folder of the platform's configs: beside the packages, or inside when installed."""
    here = Path(__file__).resolve().parents[1]
    checkout = here.parent / "conf"
    return checkout if checkout.is_dir() else here / "conf"


def named_sources(config: Mapping[str, Any]) -> list[str]:
    """Return the sources that the mixture or a stage of a plain config names, in order."""
    return list(_naming_keys(config))


def _naming_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Return source → the first key of a plain config that names it, in the order of the keys."""
    stages = (config.get("schedule") or {}).get("stages") or {}
    weights = {"mixture.weights": (config.get("mixture") or {}).get("weights")}
    weights |= {f"schedule.stages.{n}.weights": (s or {}).get("weights") for n, s in stages.items()}
    found: dict[str, str] = {}
    for where, named in weights.items():
        for name in named or {}:
            found.setdefault(name, f"{where}.{name}")
    return found


def load(config: Mapping[str, Any], config_dirs: Iterable[Path] = ()) -> RunConfig:
    """Check a composed config and make it a :class:`RunConfig`.

    Args:
        config: Plain values, as ``OmegaConf.to_container(resolve=True)`` gives them. Keys that were removed
            since it was recorded are left out; commands refuse them before.
        config_dirs: Config folders searched for ``source/<name>.yaml`` before the platform's own.

    Raises:
        ConfigError: every problem found.
    """
    own = {key: value for key, value in config.items() if key not in _OTHER_KEYS}
    values = without_removed(own)
    values["source"], problems = _sources(values, _source_dirs(config_dirs))
    try:
        carry_out(config)
    except ConfigError as error:
        problems += error.problems
    try:
        loaded: RunConfig = validate(RunConfig, values)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems, *_weight_problems(values)]) from None
    if problems:
        raise ConfigError(problems)
    loaded = _with_buckets(loaded)
    _check_across_parts(loaded)
    return loaded


def _with_buckets(config: RunConfig) -> RunConfig:
    stores = config.stores
    whole = with_shards(config.source, stores.data_dir, stores.tokenizer)
    source, mixture, schedule = expand(whole, config.mixture, config.schedule, stores)
    return replace(config, source=source, mixture=mixture, schedule=schedule)


def carry_out(config: Mapping[str, Any]) -> CarryOut:
    """Return how a command is to be carried out, by the keys beside the run's.

    Raises:
        ConfigError: every such key that holds what it cannot.
    """
    own = {field.name: config[field.name] for field in fields(CarryOut) if field.name in config}
    return validate(CarryOut, own)


def source_values(
    config: Mapping[str, Any], config_dirs: Iterable[Path] = ()
) -> dict[str, Mapping[str, Any]]:
    """Return the plain values of the sources that a plain config names and that are known."""
    return _sources(config, _source_dirs(config_dirs))[0]


def _source_dirs(config_dirs: Iterable[Path]) -> list[Path]:
    """Return the folders of sources, in order of precedence."""
    # Hydra lists its own primary folder before the command line's: ours must come last to be overridden.
    added = [Path(path) for path in config_dirs if Path(path) != conf_dir()]
    return [path / "source" for path in (*added, conf_dir())]


def _sources(
    values: Mapping[str, Any], directories: list[Path]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the plain values of every named source: its file, overridden by the config."""
    known = load_catalogue(reversed(directories))
    overrides = values.get("source") or {}
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    named = _naming_keys(values)
    wanted = dict.fromkeys([*named, *overrides])
    parents = parents_of(wanted, [*known, *overrides])
    for name in dict.fromkeys(parents.get(name, name) for name in wanted):
        override = overrides.get(name) or {}
        if name in known:
            stored = read_yaml(known[name]) or {}
            if not isinstance(stored, Mapping):
                place = f"{shown_path(known[name])}:1:1"
                problems.append(Problem(place, "not the keys of a source"))
                continue
            found[name] = _overridden(stored, override)
            parent = (found[name].get("part") or {}).get("of")
            if parent in known and parent not in found:
                found[parent] = _overridden(
                    read_yaml(known[parent]) or {}, overrides.get(parent) or {}
                )
        elif override:  # a source of the config's own
            found[name] = override
        else:
            problems.append(unknown_name(named[name], "source", name, known))
    return found, problems


def _overridden(stored: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source's values under those of the config; fields of its rows may be given alone.

    Rows with their kind stand for all of them: another kind has other columns.
    """
    values = {**stored, **override}
    rows, asked = stored.get("rows"), override.get("rows")
    if isinstance(rows, Mapping) and isinstance(asked, Mapping) and "kind" not in asked:
        values["rows"] = {**rows, **asked}
    return values


def _weight_problems(values: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of the weights in a config that is wrong elsewhere too."""
    mixture = values.get("mixture") or {}
    stages = (values.get("schedule") or {}).get("stages") or {}
    named = {
        f"schedule.stages.{name}.weights": (s or {}).get("weights") for name, s in stages.items()
    }
    if None in named.values():
        named["mixture.weights"] = mixture.get("weights")
    problems: list[Problem] = []
    for where, weights in named.items():
        if not isinstance(weights, Mapping):
            continue
        try:
            Mixture(weights, normalize=bool(mixture.get("normalize")), where=where)
        except ConfigError as error:
            problems += error.problems
        except (TypeError, ValueError):  # not a number: the field's own problem names it
            continue
    return problems


def dump(config: Any) -> dict[str, Any]:
    """Return the plain values of a config dataclass, defaults included, as the fingerprint uses them."""
    from pydantic import TypeAdapter

    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def _check_across_parts(config: RunConfig) -> None:
    """Rules that join several parts of a config."""
    problems = training_problems(config.model, config.training, config.execution)
    for where, name in (("study", config.study), ("trial", config.trial)):
        if name is not None and (problem := folder_problem(where, name)):
            problems.append(problem)
    try:
        problems += method_problems(config)
        schedule = config.build_schedule()
        config.build_learning_rate(schedule)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
