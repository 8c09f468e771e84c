"""Write the golden files of promotions anew: ``python tests/golden/promotion/regenerate.py``.

    chain_smollm2_1b7/    the files for nanotron's main branch of SmolLM2 1.7B's schedule
    chain_smollm2_360m/   one stage
    context_8k.yaml       its context extension, a new run
    launch/               the scripts of the 1.7B chain

The test compares what the code makes with these files; read the difference before committing them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablations.config.schema import RunConfig, conf_dir, load, validate
from sweeps.nanotron_files import continuation, text_of
from sweeps.promotion.full_run import chain_files, chain_run, stage_launches
from sweeps.promotion.launch import scripts
from sweeps.promotion.specs import PromotionSpec

HERE = Path(__file__).parent


def plain(config: str, *overrides: str) -> dict[str, Any]:
    """A composed config as plain values."""
    with initialize_config_dir(str(conf_dir())):
        composed = compose(config, overrides=list(overrides))
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def full(name: str, *overrides: str) -> tuple[RunConfig, PromotionSpec]:
    """A full run with a schedule from ``conf``, and where it is trained."""
    values = plain("promote", f"full={name}", *overrides)
    values.pop("compare")
    return load(values), validate(PromotionSpec, values["promotion"])


def files() -> dict[str, str]:
    """Path below this folder → text of every golden file."""
    made: dict[str, str] = {}
    for name in ("smollm2_1b7", "smollm2_360m"):
        config, spec = full(name, f"schedule={name}", "mixture=smollm2")
        run = chain_run(config, spec.full, name)
        for file, content in chain_files(run).items():
            made[f"chain_{name}/{file}"] = text_of(content, f"{name}, {file}")
        if name == "smollm2_1b7":
            for script, text in scripts(name, stage_launches(run), spec.full.cluster).items():
                made[f"launch/{script}"] = text
    small = "promotion.full.cluster.micro_batch_size=1"
    config, spec = full("smollm2_1b7", "experiment=smollm2_context_8k", small)
    extension = continuation(chain_run(config, spec.full, "smollm2_1b7_8k"))
    made["context_8k.yaml"] = text_of(extension, "SmolLM2 1.7B, context 2,048 to 8,192: a new run")
    return made


def main() -> None:
    """Write every golden file."""
    for name, text in files().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)


if __name__ == "__main__":
    main()
