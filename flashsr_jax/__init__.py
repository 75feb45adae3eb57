"""FlashSR in JAX/Flax: one-step audio super-resolution to 48 kHz, its training and its evaluation."""

__version__ = "0.1.0"
__all__ = ["FlashSR"]


def __getattr__(name: str) -> type:
    # On first use: `flashsr --help` should not wait for JAX.
    if name == "FlashSR":
        from flashsr_jax.api import FlashSR

        return FlashSR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
