"""Compiled programs of micro-sized stages, with stand-ins for the networks that they need."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType

from flashsr_jax.devices import sharding
from flashsr_jax.train.loop import make_programs
from flashsr_jax.train.stages import STAGES

from helpers import micro


def mesh_of(data, fsdp):
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def config_of(variant, dataset):
    config = micro.get_config(variant.split("-")[0])
    config.data.dir = str(dataset)
    if variant == "student":
        config.losses.update(dict.fromkeys(("distill", "adversarial", "dmd", "mel"), (1.0,) * 4))
    if variant == "tune":
        config.discriminator_steps = 0
    if variant == "student-separate":
        off = dict.fromkeys(("distill", "adversarial", "mel"), (0.0,) * 4)
        config.losses.update(off, dmd=(1.0,) * 4)
        config.fake_score = "separate"
    return config


def random_params(stage, frozen, rng):
    """Parameters of a stage's network with every layer filled, the zero-initialised ones too."""
    init = functools.partial(STAGES[stage].init, micro.get_config(stage))
    shapes = jax.eval_shape(init, frozen, jax.random.key(0)).params[stage]
    return jax.tree.map(lambda x: (0.2 * rng.standard_normal(x.shape)).astype(np.float32), shapes)


@functools.cache
def frozen_of(variant):
    """Stand-ins for the trained networks that a stage needs; made once for all tests, which change nothing of them."""
    rng = np.random.default_rng(0)
    if variant in ("vae", "vocoder"):
        return {}
    frozen = {"vae": random_params("vae", {}, rng), "scale_factor": np.float32(0.5)}
    if variant in ("regression", "teacher"):
        return frozen
    if variant == "tune":
        vocoder = {"vocoder": random_params("vocoder", {}, rng)}
        return frozen | {"init": random_params("teacher", frozen, rng)} | vocoder
    return frozen | {"teacher": random_params("teacher", frozen, rng)}


def programs_of(variant, dataset, data, fsdp, **changes):
    """(programs, frozen networks in place, mesh)."""
    config, mesh = config_of(variant, dataset), mesh_of(data, fsdp)
    config.update(changes)
    frozen = frozen_of(variant)
    frozen = sharding.place(frozen, sharding.tree_shardings(frozen, mesh, (), 64))
    return make_programs(config, STAGES[variant.split("-")[0]], mesh, frozen), frozen, mesh
