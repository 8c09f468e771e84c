"""Changes at run time that make the registry's nanotron 0.4 importable and usable on a CPU.

No file of nanotron is changed. Import it through this module first. The obstacles, and their solutions:

* ``nanotron.logging`` and ``nanotron.config`` import each other: a stand-in replaces the second while the
  first is imported.
* ``nanotron.trainer`` imports two bundled models that need flash-attn: empty modules replace them, because
  we use our own model.
* ``datasets``, ``transformers`` and ``wandb`` are imported if they are installed, which takes 1.3 s and calls
  ``wandb.init()``: they are hidden while nanotron is imported.
* ``device="cuda"`` is hard-coded in the constructor, in saving and in clipping: :class:`CudaToCpu` replaces
  it there, and never in a forward or backward pass.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from ablations.training.fast_optimizer import spare_dynamo

__all__ = ["CudaToCpu", "nanotron_trainer", "on_cpu", "use_cpu", "use_one_rank"]

P = ParamSpec("P")
T = TypeVar("T")

_HIDDEN = ("datasets", "transformers", "wandb")


def _stand_in(name: str, **members: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Make ``import name`` fail for each name, whether it was imported before or not."""
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _lend_logging_its_config() -> None:
    """Import ``nanotron.logging`` with a stand-in for the config module, which only its annotations need."""
    _stand_in("nanotron.config").__path__ = []
    _stand_in("nanotron.config.config", LoggingArgs=object)
    importlib.import_module("nanotron.logging")
    for name in ("nanotron.config.config", "nanotron.config"):
        del sys.modules[name]
    package = sys.modules["nanotron"]
    if hasattr(package, "config"):
        delattr(package, "config")


def _stub_bundled_models() -> None:
    """Replace the models that import flash-attn by classes that are never instantiated."""
    for module, names in {
        "llama": ("LlamaForTraining", "RotaryEmbedding"),
        "starcoder2": ("Starcoder2ForTraining",),
    }.items():
        _stand_in(f"nanotron.models.{module}", **{name: type(name, (), {}) for name in names})


@functools.cache
def nanotron_trainer() -> Any:
    """Return the module ``nanotron.trainer``, imported once."""
    with _hidden(_HIDDEN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Datasets and/or Transformers not installed", as intended
        _lend_logging_its_config()
        _stub_bundled_models()
        return importlib.import_module("nanotron.trainer")


class CudaToCpu(TorchFunctionMode):
    """Mode in which an explicit "cuda" device argument of a torch call becomes "cpu"."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = {
            name: _as_cpu(value) if name == "device" else value
            for name, value in (kwargs or {}).items()
        }
        if func is torch.Tensor.to:
            args = tuple(_as_cpu(value) for value in args)
        return func(*args, **named)


def _as_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


def on_cpu(function: Callable[P, T]) -> Callable[P, T]:
    """Return ``function`` with :class:`CudaToCpu` active while it runs."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with CudaToCpu():
            return function(*args, **kwargs)

    return wrapped


def use_one_rank() -> None:
    """Avoid 1.5 CPU-seconds of imports in a process that is the only rank, until it ends.

    * The comparison of tensors across ranks imports torch.distributed.tensor and sympy; one rank needs none.
    * torch's optimizers import torch._dynamo to exclude themselves from compilation. Do not call this in a
      process that compiles.
    """
    module = nanotron_trainer()
    module.save = functools.partial(module.save, sanity_checks=False)
    optimizer: Any = importlib.import_module("nanotron.serialize.optimizer")
    optimizer.check_optim_state_in_sync = lambda *_: None
    spare_dynamo()


def use_cpu() -> None:
    """Make nanotron's trainer module work without CUDA, until this process ends."""
    module = nanotron_trainer()

    class CpuParallelContext(module.ParallelContext):  # type: ignore[name-defined, misc]
        def set_device(self) -> None:
            """Do nothing: a CPU has no device to choose."""

    module.ParallelContext = CpuParallelContext
    module.log_memory = lambda **_: None
    module.clip_grad_norm = on_cpu(module.clip_grad_norm)
