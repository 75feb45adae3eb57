"""Gradients of a batch in parts, config.accumulate: those of the whole batch, at its cost, where the batch lies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flashsr_jax.cost.plan.compiled import step_collectives
from flashsr_jax.cost.plan.run import KEY, Run, batch_shapes
from flashsr_jax.data.batches import make_iterator
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError
from flashsr_jax.models.flops import count
from flashsr_jax.train.losses import weighted_mean
from flashsr_jax.train.stages import STAGES
from flashsr_jax.train.state import Gradients, accumulated

from helpers import micro
from helpers.steps import mesh_of, programs_of


def least_squares(w, batch, key):
    """Of x w - y, of the examples that count."""
    x, y, weight = batch

    def loss(w):
        return weighted_mean(jnp.sum(jnp.square(x @ w - y), axis=1), weight)

    value, gradient = jax.value_and_grad(loss)(w)
    rejected = jnp.sum(weight == 0)
    return Gradients({"w": gradient}, {"loss": value, "data/rejected": rejected}, jnp.sum(weight), {"x": x})


def batch_of(size, rng):
    weight = np.ones(size, np.float32)
    weight[[0, 2, 5]] = 0  # parts do not reject as many each
    x, y = (rng.standard_normal((size, n)).astype(np.float32) for n in (16, 8))
    return x, y, weight


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_mean_of_the_parts_is_that_of_the_batch(parts):
    rng = np.random.default_rng(0)
    batch, w = batch_of(8, rng), rng.standard_normal((16, 8)).astype(np.float32)
    parted = jax.jit(lambda batch: accumulated(parts, functools.partial(least_squares, w), batch, jax.random.key(0)))
    found = parted(batch)
    x, y, weight = (part.astype(np.float64) for part in batch)
    error = (x @ w - y) * weight[:, None]
    np.testing.assert_allclose(found.of_role["w"], 2 * x.T @ error / weight.sum(), rtol=1e-5, atol=1e-5)
    assert found.metrics["loss"] == pytest.approx(np.square(error).sum() / weight.sum(), rel=1e-5)
    assert found.metrics["data/rejected"] == 3 and found.examples == 5
    np.testing.assert_array_equal(found.made["x"], batch[0])
    nothing = parted((*batch[:2], 0 * batch[2]))
    assert not nothing.of_role["w"].any() and nothing.metrics["loss"] == 0


def test_parts_stay_on_the_devices_that_have_them():
    """Of a batch that is split over eight devices no example moves: gradients are all that is exchanged."""
    mesh, rng = mesh_of(4, 2), np.random.default_rng(0)
    batch, w = batch_of(64, rng), np.ones((16, 8), np.float32)
    placed = sharding.place(batch, jax.tree.map(lambda _: NamedSharding(mesh, sharding.BATCH_SPEC), batch))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    step = jax.jit(lambda w, batch: accumulated(4, functools.partial(least_squares, w), batch, jax.random.key(0)))
    step = step.lower(jax.device_put(w, split), placed).compile()
    found = step(jax.device_put(w, split), placed)
    expected = jax.jit(lambda w, batch: least_squares(w, batch, None).of_role["w"])(w, batch)
    np.testing.assert_allclose(found.of_role["w"], expected, rtol=1e-5, atol=1e-5)
    assert found.made["x"].sharding.is_equivalent_to(placed[0].sharding, 2)
    of_w = 4 * w.size
    exchanged = step_collectives(step.as_text())
    assert "all-to-all" not in exchanged and "collective-permute" not in exchanged
    assert all(size <= 2 * of_w + 64 for _, size in exchanged.values()), exchanged


@pytest.mark.training
def test_flops_of_a_step_are_the_same():
    """Those of the teacher's solve and of the fake score's updates, too."""
    flops = []
    for parts in (1, 2):
        config = micro.get_config("student")
        config.update(accumulate=parts, fake_score="separate")
        run = Run.of(config)
        step = functools.partial(STAGES["student"].train_step, config)
        flops.append(count(step, run.state, run.frozen, batch_shapes(config, 8), KEY, while_trips=3))
    assert flops[0] == flops[1]


@pytest.mark.training
def test_a_step_in_parts_equals_a_step_at_once(dataset):
    """Of a stage that draws nothing: the vocoder on whole windows of the true mel. Both roles move alike."""
    data = micro.get_config("vocoder").data
    data.dir = str(dataset)
    batch = next(make_iterator(data, "train", batch_size=8, window_samples=32 * 480, seed=0))
    batch["hr"][3] = 0  # a silent window counts in no part
    steps = []
    for parts in (1, 2):
        programs, frozen, _ = programs_of("vocoder", dataset, 1, 1, accumulate=parts, crop_frames=32)
        state, metrics = programs.step(programs.init(frozen, jax.random.key(3)), frozen, batch, jax.random.key(3))
        steps.append(jax.device_get((metrics, {role: moments[1][0].mu for role, moments in state.opt_state.items()})))
    (metrics, moments), (metrics_of_parts, moments_of_parts) = steps
    assert metrics["data/rejected"] == metrics_of_parts["data/rejected"] == 1
    for name, value in metrics.items():
        assert metrics_of_parts[name] == pytest.approx(value, rel=1e-4), name
    assert moments.keys() == {"vocoder", "discriminator"}
    pairs = zip(jax.tree.leaves_with_path(moments), jax.tree.leaves(moments_of_parts), strict=True)
    for (path, expected), actual in pairs:
        # A bias of a discriminator sums over all of a spectrogram, and real and made nearly cancel: how that is rounded
        # changes with the program that XLA makes, by up to 0.15 % of the sum. Kernels have the same terms, and agree.
        of_spectrogram = path[0].key == "discriminator" and path[1].key.startswith("resolution")
        tolerance = 3e-3 if of_spectrogram and path[-1].key == "bias" else 1e-4
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-6))


def test_batches_that_do_not_divide_into_their_parts_are_mistakes():
    mesh = sharding.make_mesh(8, 1)
    sharding.check_batch_size(16, mesh, 2)
    with pytest.raises(UserError, match=r"config.batch_size=24 .* in config.accumulate=2 parts each: .* such as 16"):
        sharding.check_batch_size(24, mesh, 2)
    with pytest.raises(UserError, match="config.accumulate=0: give the number"):
        sharding.check_batch_size(24, mesh, 0)
