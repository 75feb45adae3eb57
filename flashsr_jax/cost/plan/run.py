"""A run without values: its arrays as shapes, and its step's program.

Letters: B batch, N samples, T mel frames; latents are (B, T / s, F / s, C).
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP
from flashsr_jax.audio.lowpass import LowpassFilter, filter_arrays
from flashsr_jax.cost.plan.program import Scaled
from flashsr_jax.devices import sharding
from flashsr_jax.models.pipeline import latent_shape
from flashsr_jax.train.frozen import model_of, shapes
from flashsr_jax.train.stages import STAGES
from flashsr_jax.train.starts import mean_solver_steps
from flashsr_jax.train.state import TrainState

KEY = jax.eval_shape(lambda: jax.random.key(0))


@dataclass(frozen=True)
class Run:
    """Shapes of a run's frozen networks and of its state."""

    config: ConfigDict
    frozen: dict
    state: TrainState

    @classmethod
    def of(cls, config: ConfigDict) -> "Run":
        """Allocates nothing and reads no file."""
        stage = STAGES[config.stage]
        frozen = shapes(config, stage.needs(config))
        return cls(config, frozen, jax.eval_shape(functools.partial(stage.init, config), frozen, KEY))

    @functools.cached_property
    def program(self) -> Scaled:
        """One step at any batch, traced twice at the first use."""
        step = functools.partial(STAGES[self.config.stage].train_step, self.config)
        sizes = 2 * self.config.accumulate, 4 * self.config.accumulate
        return Scaled.read(step, lambda size: (self.state, self.frozen, batch_shapes(self.config, size), KEY), sizes)

    @property
    def solver_steps(self) -> np.ndarray:
        """Trips of the step's only loop of unknown length, the teacher's solve, on average in each phase; else 0."""
        return mean_solver_steps(self.config) if self.config.stage == "student" else np.zeros(1)

    def shardings(self, mesh: Mesh | AbstractMesh) -> tuple[TrainState, dict[str, Any]]:
        """(state, frozen networks) as trees of shardings on a mesh, abstract or not."""
        rules = self.config.sharding.rules, self.config.sharding.min_size
        state, frozen = (sharding.tree_shardings(tree, mesh, *rules) for tree in (self.state, self.frozen))
        return state, frozen


def batch_shapes(config: ConfigDict, size: int) -> dict[str, Any]:
    """Shapes of a training batch of `size` windows: waveforms and filters, or cached latents."""

    def array(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    model, samples = model_of(config), config.data.window_frames * HOP
    common = {"cutoff_hz": array(()), "bandwidth_hz": array(()), "class_id": array((), jnp.int32)}
    if config.data.get("latents"):
        z, mel = latent_shape(model, samples), (config.data.window_frames, model.vae.mel_bins)
        halves = {name: array(shape, jnp.float16) for name, shape in (("z_hr", z), ("z_lr", z), ("mel", mel))}
        return common | halves | {"weight": array(())}
    if config.data.lr_simulation == "exact":
        return common | {"hr": array((samples,)), "lr": array((samples,))}
    if config.data.floor_probability:
        common |= {"lr": array((samples,)), "lr_given": array((), jnp.bool_)}
    lowpass = filter_arrays(LowpassFilter("bessel", 10, 4000.0))
    filters = jax.tree.map(lambda x: array(np.shape(x), jnp.asarray(x).dtype), lowpass)
    return common | {"hr": array((samples,)), "filter": filters}
