"""A loaded model: what inference needs."""

import os
from typing import NamedTuple

import jax.numpy as jnp

from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.models.vocoder import fold_weight_norm
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import NETWORKS, load_weights


class Model(NamedTuple):
    """What inference needs: sizes, and the parameters of all networks with `scale_factor`."""

    config: ModelConfig
    params: dict


def load_model(path: str | os.PathLike) -> Model:
    """Load all three networks onto the default device, from a weights file or by a shipped model's name ("small"), the
    vocoder without its weight norm (`fold_weight_norm`).

    Raises UserError as `load_weights` does.
    """
    weights = load_weights(weights_path(path), NETWORKS, jnp.array)
    vocoder = weights.params.pop("vocoder")
    return Model(weights.config, weights.params | {"vocoder": fold_weight_norm(vocoder)})
