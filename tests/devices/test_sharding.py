"""One training step of every stage on 8 devices equals the step on one; shapes of meshes and rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from flashsr_jax.data.batches import make_iterator
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError

from helpers import micro
from helpers.steps import mesh_of, programs_of

MESHES = {"data": (8, 1), "fsdp": (1, 8), "mixed": (4, 2)}
VARIANTS = ["student", "vocoder"]
LIKE_OTHERS = ["regression", "teacher", "student-separate", "tune"]  # made of parts of the others
# A program takes a minute to compile: the mixed mesh is both of the others, which one stage is enough for.
CASES = [("vae", ("data", "fsdp")), *((variant, ("mixed",)) for variant in VARIANTS)]
RARE = [
    ("vae", ("mixed",)),
    *((variant, ("data", "fsdp")) for variant in VARIANTS),
    *((variant, ("mixed",)) for variant in LIKE_OTHERS),
]


def one_step(variant, dataset, data, fsdp, batch, state):
    """(metrics, first moments of all optimizers: 0.1 x the clipped gradients) after one step from `state`."""
    programs, frozen, mesh = programs_of(variant, dataset, data, fsdp)
    state = sharding.place(state, programs.state_shardings)
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert (split > 0) == (fsdp > 1), "fsdp must split the state, and data parallelism must not"
    state, metrics = programs.step(state, frozen, sharding.to_global(batch, mesh), jax.random.key(3))
    return jax.device_get((metrics, {role: opt[1][0].mu for role, opt in state.opt_state.items()}))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Twenty programs that run once each: compiling them without optimization takes half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def batch(dataset):
    config = micro.get_config("vae")
    config.data.dir = str(dataset)
    return next(make_iterator(config.data, "train", batch_size=8, window_samples=32 * 480, seed=0))


@pytest.mark.training
@pytest.mark.parametrize(
    ("variant", "meshes"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in RARE)]
)
def test_a_step_on_eight_devices_equals_a_step_on_one(variant, meshes, dataset, batch):
    programs, frozen, _ = programs_of(variant, dataset, 1, 1)
    state = jax.device_get(programs.init(frozen, jax.random.key(3)))
    metrics, moments = one_step(variant, dataset, 1, 1, batch, state)
    assert ("distill" in metrics) == (variant == "student"), "a loss whose weight is 0 is not computed"
    for name in meshes:
        metrics_8, moments_8 = one_step(variant, dataset, *MESHES[name], batch, state)
        for term in metrics:
            np.testing.assert_allclose(metrics_8[term], metrics[term], rtol=5e-4, atol=1e-6, err_msg=f"{name} {term}")
        leaves, leaves_8 = jax.tree.leaves_with_path(moments), jax.tree.leaves(moments_8)
        for (path, expected), actual in zip(leaves, leaves_8, strict=True):
            tolerance = 1e-3 * max(np.abs(expected).max(), 1e-3 * _largest(moments))
            np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0, err_msg=f"{name} {path}")


@pytest.mark.training
def test_the_state_is_created_sharded(dataset):
    programs, frozen, mesh = programs_of("vae", dataset, 1, 8)
    state = programs.init(frozen, jax.random.key(0))
    kernel = state.params["vae"]["encoder"]["middle"]["block_1"]["conv1"]["kernel"]
    assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // 8}
    moment = state.opt_state["vae"][1][0].mu["encoder"]["middle"]["block_1"]["conv1"]["kernel"]
    assert moment.sharding == kernel.sharding and mesh.size == 8


def _largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def test_mesh_and_batch_errors_say_what_to_change():
    assert dict(sharding.make_mesh(-1, 2).shape) == {"data": 4, "fsdp": 2}
    assert dict(sharding.make_mesh(1, -1).shape) == {"data": 1, "fsdp": 8}
    with pytest.raises(UserError, match=r"data=3 x fsdp=2 does not cover 8 devices: set config\.mesh"):
        sharding.make_mesh(3, 2)
    with pytest.raises(UserError, match="config.batch_size=12 does not divide over the mesh's 8 devices.*such as 8"):
        sharding.check_batch_size(12, sharding.make_mesh(8, 1))


def test_rules_come_before_the_largest_divisible_axis():
    mesh = mesh_of(4, 2)
    tree = {"a": {"kernel": jnp.zeros((4, 6, 8))}, "b": {"kernel": jnp.zeros((4, 6, 8)), "bias": jnp.zeros(8)}}
    placed = sharding.tree_shardings(tree, mesh, [("a/kernel", ("fsdp", None, "data"))], min_size=64)
    assert placed["a"]["kernel"].spec == PartitionSpec("fsdp", None, "data")
    assert placed["b"]["kernel"].spec == PartitionSpec(None, None, "fsdp")
    assert placed["b"]["bias"].spec == PartitionSpec()  # under min_size
    with pytest.raises(UserError, match="does not fit a/kernel"):
        sharding.tree_shardings(tree, mesh, [("a/kernel", (None, "data"))], min_size=64)
