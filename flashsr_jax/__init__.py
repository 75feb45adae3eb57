"""FlashSR in JAX/Flax: one-step audio super-resolution to 48 kHz, its training and its evaluation."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashsr_jax.api import FlashSR

__version__ = "0.2.0"
__all__ = ["FlashSR"]

MOVED = {"benchmark": "benchmark train", "cache_latents": "data encode", "flops": "plan --presets"}


class _Moved:
    """What Python asks last for a module: says which command took the place of `python -m flashsr_jax.OLD`."""

    @staticmethod
    def find_spec(name: str, *path_and_target: object) -> None:
        package, _, module = name.rpartition(".")
        if package == __name__ and module in MOVED:
            raise ModuleNotFoundError(f"it is `flashsr {MOVED[module]}` now", name=name)


sys.meta_path.append(_Moved)


def __getattr__(name: str) -> object:
    # On first use: `flashsr --help` should not wait for JAX.
    if name == "FlashSR":
        from flashsr_jax.api import FlashSR

        return FlashSR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
