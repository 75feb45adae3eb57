"""A loaded model: what inference needs."""

import os
import types
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.models.vocoder import fold_weight_norm
from flashsr_jax.weights.origin import stage_of
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import NETWORKS, load_weights


class Model(NamedTuple):
    """What inference needs: sizes, and the parameters of all networks with `scale_factor`; and where each network comes
    from, in words (see `weights.origin`)."""

    config: ModelConfig
    params: dict
    origins: Mapping[str, str] = types.MappingProxyType({})

    @property
    def name(self) -> str:
        """What its U-Net is: the stage that trained it (`regression`, `student`, `teacher`), or its file's name where
        the weights do not say."""
        return stage_of(self.origins.get("unet", "model"))


def load_model(path: str | os.PathLike) -> Model:
    """Load all three networks onto the default device, from a weights file or by a shipped model's name ("small"), the
    vocoder without its weight norm (`fold_weight_norm`).

    Raises UserError as `load_weights` does.
    """
    file = weights_path(path)
    weights = load_weights(file, NETWORKS, _copied)
    vocoder = weights.params.pop("vocoder")
    origins = {network: weights.metadata.get(network, file.name) for network in NETWORKS}
    return Model(weights.config, weights.params | {"vocoder": fold_weight_norm(vocoder)}, origins)


def _copied(tensor: np.ndarray) -> jax.Array:
    """On the default device; what is read from a file would stay mapped."""
    return jax.device_put(tensor.copy())
