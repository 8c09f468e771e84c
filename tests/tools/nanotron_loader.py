"""Load files with nanotron's own loader, and build its own learning rate.

    python nanotron_loader.py CHECKOUT FILE…

prints a line of JSON a file: the loader's error, or the model's flags and the learning rate of every
step as a share of the plateau (for runs of up to 1,000 steps). ``rate_of_scheduler`` is that of the
scheduler alone, with ``lr_decay_steps`` as the file says it: the loader fills a null before.

Stubbed, because they need CUDA kernels and no config does: the modules ``nanotron.nn`` of
ring attention, layer norm and experts. ``log_rank`` is a no-op, because it asks for a process group.
The loader, the config classes and the scheduler are the checkout's own.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

STUBBED = ("ring_attention", "llama3_ring_attention", "layer_norm", "moe")
MOST_STEPS = 1000


def _stub(name: str) -> None:
    module = types.ModuleType(name)

    def member(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return type(attribute, (), {"__call__": lambda *_, **__: None})

    module.__getattr__ = member  # type: ignore[method-assign]
    sys.modules[name] = module


def _rate(scheduler: Any, steps: int) -> list[float]:
    import nanotron.helpers as helpers
    import torch

    helpers.log_rank = lambda *_, **__: None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=scheduler.learning_rate)

    class Holder:
        def get_base_optimizer(self) -> Any:
            return optimizer

    built = helpers.lr_scheduler_builder(Holder(), scheduler, steps)
    return [float(built.lr_lambdas[0](step)) for step in range(steps + 1)]


def load(path: str) -> dict[str, Any]:
    """Return what nanotron makes of one file."""
    import yaml
    from nanotron.config import get_config_from_file

    try:
        config = get_config_from_file(path)
    except Exception as error:  # whatever the loader refuses with
        return {"file": path, "error": f"{type(error).__name__}: {error}"}
    answer: dict[str, Any] = {"file": path, "error": None}
    model = config.model.model_config
    answer["flags"] = {k: v for k, v in vars(model).items() if "fused" in k or "packed" in k}
    steps = config.tokens.train_steps
    if steps <= MOST_STEPS:
        scheduler = config.optimizer.learning_rate_scheduler
        said = yaml.safe_load(Path(path).read_text())["optimizer"]["learning_rate_scheduler"]
        alone = dataclasses.replace(scheduler, lr_decay_steps=said.get("lr_decay_steps"))
        answer["rate"] = _rate(scheduler, steps)
        answer["rate_of_scheduler"] = _rate(alone, steps)
    return answer


def main() -> None:
    """Load every file that the command line names."""
    sys.path.insert(0, str(Path(sys.argv[1]) / "src"))
    for name in STUBBED:
        _stub(f"nanotron.nn.{name}")
    for path in sys.argv[2:]:
        print(json.dumps(load(path)))


if __name__ == "__main__":
    main()
