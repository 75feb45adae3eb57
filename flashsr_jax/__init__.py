"""FlashSR in JAX/Flax: one-step audio super-resolution to 48 kHz, its training and its evaluation."""

__version__ = "0.1.0"
