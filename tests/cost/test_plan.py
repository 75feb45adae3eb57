"""The dry run: its model of a program against counts by hand and against XLA, and the command."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType

from flashsr_jax.cost.plan import placement
from flashsr_jax.cost.plan.chips import CHIPS, gather_seconds, operation_seconds
from flashsr_jax.cost.plan.compiled import compile_step, compiled_report, step_collectives
from flashsr_jax.cost.plan.dry_run import dry_run
from flashsr_jax.cost.plan.program import Scaled
from flashsr_jax.cost.plan.run import KEY, Run, batch_shapes
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError
from flashsr_jax.models.flops import count
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.train.batch import waveform_batches
from flashsr_jax.train.frozen import model_of
from flashsr_jax.train.stages import STAGES

from helpers import micro
from helpers.configs import get_config

WEIGHT = jax.ShapeDtypeStruct((64, 64), jnp.float32)
ROW, SQUARE = 4 * 64, 4 * 64 * 64  # bytes of a row of activations, and of the weight


@pytest.fixture
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def scaled(function, *weights):
    return Scaled.read(function, lambda size: (*weights, jax.ShapeDtypeStruct((size, 64), jnp.float32)))


def mesh_of(data, fsdp):
    return AbstractMesh((data, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def test_pointwise_operations_take_no_memory_of_their_own():
    program = scaled(lambda w, x: jnp.tanh(2 * (x @ w) + 1) @ w @ w, WEIGHT)
    assert [op.name for op in program.operations] == ["dot_general", "pointwise", "dot_general", "dot_general"]
    # Two intermediate arrays at a time: what a product reads and what it writes. The last result is the caller's.
    assert program.peak(10) == 2 * 10 * ROW
    np.testing.assert_allclose(program.moved @ (1, 10), [SQUARE + 20 * ROW, 20 * ROW, *[SQUARE + 20 * ROW] * 2])


def test_what_the_backward_pass_needs_stays():
    def gradient(w, x):
        return jax.grad(lambda w: jnp.sum(jnp.sin(jnp.sin(x @ w) @ w) @ w))(w)

    program = scaled(gradient, WEIGHT)
    # Two products' results and their sines, and the gradient on its way; of the weight's three gradients the first.
    assert program.peak(1000) == 5 * 1000 * ROW + SQUARE
    assert program.peak(1) == ROW + 3 * SQUARE  # at the end, all three
    assert program.peak(1, 0.5) < program.peak(1)


def test_loops_run_their_trips_and_hold_what_they_read():
    def loops(w, x):
        y = lax.scan(lambda carry, _: (jnp.tanh(carry @ w), None), x, None, length=7)[0]
        return lax.fori_loop(jnp.int32(w[0, 0]), 3, lambda _, y: y @ w, y)

    program = scaled(loops, WEIGHT)
    product = 2 * 64 * 64 * 8
    assert program.total_flops(8, while_trips=2.5) == 9.5 * product
    seconds = program.seconds(8, 2.5, lambda flops, *_: flops)
    assert seconds["dot_general"] == sum(seconds.values()) == 9.5 * product


def test_a_part_of_an_array_moves_no_more_than_itself():
    def rows(w, x):
        def add(total, row):
            return total + row @ w + lax.dynamic_index_in_dim(x, 3, keepdims=False) @ w, None

        return lax.scan(add, jnp.zeros(64), x)[0]

    program = scaled(rows, WEIGHT)
    moved = {op.name: moved @ (1, 10) for op, moved in zip(program.operations, program.moved, strict=True)}
    assert moved["slice"] == moved["dynamic_slice"] == 2 * ROW


def test_of_a_choice_by_platform_the_accelerators_branch_runs():
    def choice(w, x):
        return lax.platform_dependent(x, cpu=lambda x: x @ w @ w @ w, default=lambda x: x @ w)

    assert [op.name for op in scaled(choice, WEIGHT).operations] == ["platform_index", "dot_general", "loop"]


@pytest.mark.training
def test_flops_of_a_step_at_any_batch_are_those_that_are_counted():
    run = Run.of(micro.get_config("student"))

    def step(*args):
        return STAGES["student"].train_step(run.config, *args)

    expected = count(step, run.state, run.frozen, batch_shapes(run.config, 6), KEY, while_trips=3)
    assert run.program.total_flops(6, while_trips=3) == pytest.approx(expected, rel=1e-9)
    assert run.program.peak(6) > run.program.peak(3) > 0


def network_of(name, remat):
    """(module, inputs of a batch size) of a micro network."""
    model = model_of(micro.get_config("vae"))
    z, mel, audio = (16, 16, 2), (32, 32), (32 * 480,)
    module, shapes = {
        "vae": (VAE(model.vae, remat=remat), [mel]),
        "unet": (UNet(dataclasses.replace(model.unet, multipliers=(1, 2)), remat=remat), [z, z, ()]),
        "vocoder": (
            SRVocoder(dataclasses.replace(model.vocoder, kernels=(3, 5, 7), dilations=(1, 3)), remat=remat),
            [mel, audio],
        ),
    }[name]
    return module, lambda size: [jax.ShapeDtypeStruct((size, *shape), jnp.float32) for shape in shapes]


@pytest.mark.training
@pytest.mark.parametrize("name", ["vae", "unet", "vocoder"])
def test_remat_holds_less_and_computes_more(name):
    programs, shapes = {}, []
    for remat in ("none", "products", "blocks"):
        module, inputs_of = network_of(name, remat)
        params = jax.eval_shape(module.init, KEY, *inputs_of(1))
        shapes.append(jax.tree.map(lambda x: x.shape, params))

        def gradient(params, *inputs, module=module):
            return jax.grad(lambda params: jnp.sum(jnp.square(module.apply(params, *inputs))))(params)

        programs[remat] = Scaled.read(gradient, lambda size: (params, *inputs_of(size)))  # noqa: B023
    assert shapes[0] == shapes[1] == shapes[2], "the parameters are the same ones"
    held = {remat: program.peak(1000) for remat, program in programs.items()}
    assert held["none"] > 1.05 * held["products"] > 1.2 * held["blocks"]
    flops = {remat: program.total_flops(8) for remat, program in programs.items()}
    assert flops["none"] == flops["products"] < flops["blocks"] < 1.5 * flops["none"]


@pytest.mark.training
def test_remat_changes_no_value(quick_compilation):
    rng = np.random.default_rng(0)
    _, inputs_of = network_of("unet", "none")
    inputs = [jnp.asarray(rng.standard_normal(x.shape), jnp.float32) for x in inputs_of(2)]
    gradients = []
    for remat in ("none", "products", "blocks"):
        module, _ = network_of("unet", remat)
        params = jax.tree.map(
            lambda x: jnp.asarray(0.2 * np.random.default_rng(1).standard_normal(x.shape), jnp.float32),
            jax.eval_shape(module.init, KEY, *inputs),
        )
        loss = jax.jit(jax.grad(lambda p, module=module: jnp.mean(jnp.square(module.apply(p, *inputs)))))
        gradients.append(loss(params))
    for other in gradients[1:]:
        for expected, actual in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6 + 1e-4 * np.abs(expected).max())


def test_an_unknown_remat_is_named():
    module, inputs_of = network_of("vae", "everything")
    with pytest.raises(UserError, match="config.remat='everything' is not one of none, products, blocks"):
        jax.eval_shape(module.init, KEY, *inputs_of(1))


@pytest.mark.training
def test_memory_and_collectives_follow_the_rules():
    config = micro.get_config("vae")
    run = Run.of(config)
    whole = 4 * sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    held = placement.memory(run, mesh_of(8, 1), 1)
    assert held.parameters == whole and 2 * whole < held.optimizer < 2 * whole + 200
    parallel = placement.collectives(run, mesh_of(8, 1))
    assert {each.kind for each in parallel} == {"all-reduce"}
    assert sum(each.size for each in parallel) == whole
    assert sum(each.sent for each in parallel) == pytest.approx(2 * whole * 7 / 8)

    split = placement.memory(run, mesh_of(2, 4), 1)
    assert whole / 4 < split.parameters < 0.5 * whole
    kinds = {each.kind: each for each in placement.collectives(run, mesh_of(2, 4)) if "vae" in each.what}
    of_vae = 4 * sum(leaf.size for leaf in jax.tree.leaves(run.state.params["vae"]))
    assert kinds["all-gather"].times == 2
    assert 0.8 * of_vae < kinds["all-gather"].size == kinds["reduce-scatter"].size < of_vae
    assert not placement.collectives(run, mesh_of(1, 1))


def test_the_batch_is_that_of_training(dataset):
    for changes in ({}, {"floor_probability": 0.5}, {"lr_simulation": "exact"}):
        config = micro.get_config("vae")
        config.data.update(dir=str(dataset), **changes)
        batch = next(waveform_batches(config, 8))
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (batch, batch_shapes(config, 8))]
        assert shapes[0] == shapes[1], changes


def test_the_roofline():
    chip = next(chip for chip in CHIPS if chip.name == "v5p")
    # A large product at its share of the peak, a short one padded to the systolic array, a copy by its bytes.
    seconds = operation_seconds(
        chip, np.array([1e12, 1e12, 0]), np.array([512, 32, 0]), np.array([True] * 3), np.array([0, 0, 1e9])
    )
    np.testing.assert_allclose(seconds, [1e12 / 0.7 / 459e12, 4e12 / 0.7 / 459e12, 1e9 / 0.8 / 2765e9])
    inside, outside = (gather_seconds(next(c for c in CHIPS if c.name == "H100"), 1e9, n) for n in (8, 16))
    assert inside == pytest.approx(7 / 8 * 1e9 / 0.8 / 450e9)
    assert outside == pytest.approx(inside + 1 / 2 * 1e9 / 0.8 / (8 * 50e9))
    kinds = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H200": "H200"}
    for kind, name in kinds.items():
        assert [chip.name for chip in CHIPS if chip.matches(kind)] == [name]


@pytest.mark.training
def test_the_published_size_without_allocating_it(capsys):
    config = get_config("vae", "base")
    config.mesh.fsdp = 4
    dry_run(config, devices=64)
    out = capsys.readouterr().out
    assert "params/vae/encoder/middle/block_1/conv1/kernel | float32[3, 3, 1024, 1024] | -, -, fsdp | 9.00 MiB" in out
    assert "mesh {'data': 16, 'fsdp': 4}, batch 64 (1 a device), bfloat16, remat none" in out
    assert "reduce-scatter gradients of vae: " in out
    assert re.search(r"  H200: (\d+) \(.*conv_general_dilated \d+%", out)
    pods = [line.split() for line in out.splitlines() if line.startswith(("v5e ", "v5p ", "H100 ", "H200 "))]
    assert len(pods) == 28 and [pod[1] for pod in pods[:7]] == ["8", "16", "32", "64", "128", "256", "512"]
    v5e = {pod[1]: pod for pod in pods[:7]}
    assert "NO" in v5e["8"] and "fits" in v5e["64"]
    assert jax.live_arrays() == [] or max(x.nbytes for x in jax.live_arrays()) < 2**24


def test_mistakes_are_named():
    config = micro.get_config("vae")
    with pytest.raises(UserError, match="does not divide over the mesh's 16 devices"):
        dry_run(config, devices=16)
    with pytest.raises(UserError, match="v5:nonsense: .*v5e:2x4.*flashsr_jax.tpu"):
        list(compiled_report(config, "v5:nonsense"))


@pytest.mark.training
def test_what_xla_says_agrees(quick_compilation):
    """Arguments to a hundredth: XLA leaves out what the step does not read."""
    config = micro.get_config("vae")
    config.losses.adversarial = 0.0
    run, mesh = Run.of(config), sharding.make_mesh(8, 1)
    compiled, _ = compile_step(config, mesh)
    held = placement.memory(run, mesh_of(8, 1), 1)
    arguments = compiled.memory_analysis().argument_size_in_bytes
    expected = held.parameters + held.optimizer + held.average + held.frozen + held.batch / 2
    assert arguments == pytest.approx(expected, rel=0.02)
    assert set(step_collectives(compiled.as_text())) == {"all-reduce"}


def test_collectives_are_read_from_a_program():
    text = """
      %all-reduce.1 = (f32[3,4]{1,0}, /*index=5*/bf16[8]{0}) all-reduce(%a, /*index=5*/%b), channel_id=1, to_apply=%add
      %all-gather = f32[8,10,2048]{2,1,0} all-gather(%multiply), channel_id=2, dimensions={0}
      %all-reduce-start.2 = f32[] all-reduce-start(%c), to_apply=%add
      %all-reduce-done.2 = f32[] all-reduce-done(%all-reduce-start.2)
    """
    found = step_collectives(text)
    assert found == {"all-reduce": (2, 4 * 12 + 2 * 8 + 4), "all-gather": (1, 4 * 8 * 10 * 2048)}
