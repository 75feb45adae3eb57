"""The `tiny` preset with random weights of a size that keeps activations alive, so that every input matters."""

import copy
import functools

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flashsr_jax.models.presets import preset
from flashsr_jax.weights.store import NETWORKS, parameter_shapes

TINY = preset("tiny")


def tiny_params(seed: int = 0) -> dict:
    """Parameters of all three networks, numpy float32, and `scale_factor`; the caller's own."""
    return copy.deepcopy(_params(seed))


@functools.cache
def _params(seed: int) -> dict:
    """Made once for all tests: that takes tracing all three networks."""
    rng = np.random.default_rng(seed)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        if name.endswith(("scale", "/g")):  # gains of normalisation layers and of weight norm
            return np.ones(shape)
        return 0.02 * rng.normal(size=shape)

    params = {"scale_factor": np.float32(0.33419999)}
    for network in NETWORKS:
        shapes = flatten_dict(parameter_shapes(TINY, network), sep="/")
        values = {name: value(name, leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
        params[network] = unflatten_dict(values, sep="/")
    return params
