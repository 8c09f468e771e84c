"""A run from Python: compose its config as the command line does, and train and score it.

config = compose("mixture.weights.wiki=0.5", "mixture.weights.chat=0.1")
finished = run(config)
finished.result["score"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.composed import require_composed
from ablations.config.file_places import placed, source_files
from ablations.config.schema import RunConfig, conf_dir, load
from ablations.errors import UserError
from ablations.terminal import quoted
from ablations.yaml_files import ConfigFile, checked_loading

if TYPE_CHECKING:
    from ablations.execute import Finished

__all__ = ["compose", "run"]


def compose(*overrides: str, config_dirs: Sequence[Path | str] = ()) -> RunConfig:
    """Return the config of a run, composed and checked as ``ablate run`` does it.

    Args:
        overrides: Words as on the command line: ``"model=proxy_11m"``, ``"experiment=mine"``.
        config_dirs: Folders of the user's own configs, as ``--config-dir`` gives one.

    Raises:
        ConfigError: everything that is wrong with it, with file and line where a file of the user's is.
        UserError: an override that cannot be composed.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ablations.config.overrides import explain

    folders = [Path(folder).absolute() for folder in config_dirs]
    files: list[ConfigFile] = []
    try:
        plain = _plain(overrides, folders, files)
        require_composed(plain)
        return load(plain, folders)
    except UserError as error:
        raise placed(error, [*files, *source_files(folders, error.problems)], overrides) from None
    except (HydraException, OmegaConfBaseException) as error:
        problem = explain(error, "run", overrides, files)
        raise placed(UserError(problem), files, overrides) from None


def run(config: RunConfig, *, in_process: bool = False, progress: bool = False) -> Finished:
    """Train and score a run, as far as that is not done yet; return its record and its result.

    Args:
        config: The run, as :func:`compose` gives it.
        in_process: Train and score in this process, which must end with the run; otherwise in children.
        progress: Show bars in a terminal, lines elsewhere.

    Raises:
        UserError: the run cannot be done as configured; nothing was lost.
        WorkError: training or scoring failed; the record holds the step and the reason.
    """
    # Imported here: composing needs no training.
    from ablations.execute import execute
    from ablations.progress import RunProgress

    with RunProgress(shown=progress) as shown:
        return execute(config, in_process=in_process, progress=shown)


def _plain(
    overrides: Sequence[str], folders: Sequence[Path], files: list[ConfigFile]
) -> dict[str, Any]:
    """Return the composed config as plain values; ``files`` takes the user's files that were read."""
    import hydra
    from omegaconf import OmegaConf

    from ablations.config.hydra_section import checked_composing

    words = list(overrides)
    if folders:
        paths = ",".join(quoted(f"file://{folder}") for folder in folders)
        words.append(f"hydra.searchpath=[{paths}]")
    with (
        _hydra_of_its_own(),
        checked_loading(conf_dir(), files),
        checked_composing(),
        hydra.initialize_config_dir(str(conf_dir())),
    ):
        composed = hydra.compose("run", overrides=words)
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@contextmanager
def _hydra_of_its_own() -> Iterator[None]:
    """Put Hydra's global state aside, so that a notebook that uses Hydra itself keeps its own."""
    from hydra.core.global_hydra import GlobalHydra

    # Not all of Hydra's state: its store of configs is filled when plugins are imported, once.
    state = GlobalHydra.instance()
    kept = state.hydra
    state.clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = kept  # initializing has put another in its place
