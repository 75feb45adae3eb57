"""What XLA itself says of a step: compiled ahead of time, for the devices here or for a TPU topology that is not.

TPUs need `pip install 'flashsr_jax[tpu]'` (libtpu), no TPU.
"""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from ml_collections import ConfigDict

from flashsr_jax.cost.plan.run import KEY, Run, batch_shapes
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError
from flashsr_jax.train.loop import make_programs
from flashsr_jax.train.stages import STAGES

GIB = 2**30
COLLECTIVES = re.compile(
    r"= (?P<shape>\(?[^=]*?\)?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
ARRAY = re.compile(r"\b(?:[a-z]+)(?P<bits>\d+)(?:e\d\w*)?\[(?P<shape>[\d,]*)\]")


def compiled_report(config: ConfigDict, platform: str) -> Iterator[str]:
    """Lines of XLA's memory analysis and collectives of one training step; `platform` is "here" or as "v5e:2x4".

    Raises UserError where there is no such topology, and for a mesh or a batch that does not divide over it.
    """
    devices = jax.devices() if platform == "here" else _topology(platform)
    shape = sharding.mesh_shape(config.mesh.data, config.mesh.fsdp, len(devices))
    mesh = jax.make_mesh(shape, sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)
    sharding.check_batch_size(config.batch_size, mesh, config.accumulate)
    yield f"\ncompiled for {len(devices)} x {devices[0].device_kind}, XLA's own figures"
    compiled, seconds = compile_step(config, mesh)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise UserError(f"{platform}: this compiler says nothing of a program's memory; leave its figures out")
    whole = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "activations": memory.temp_size_in_bytes,
        "new results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
        "total": whole - memory.alias_size_in_bytes + memory.generated_code_size_in_bytes,
    }
    yield "  GiB a device: " + ", ".join(f"{name} {size / GIB:.3f}" for name, size in sizes.items())
    for kind, found in step_collectives(text).items():
        yield f"  {kind}: {found.number} of {found.size / 2**20:.2f} MiB a device in all (in a loop's body: once)"
    yield (
        f"  traced in {seconds.trace:.0f} s ({seconds.trace_processor:.0f} of processor time), compiled in "
        f"{seconds.compile:.0f} s ({seconds.compile_processor:.0f})"
    )


class Seconds(NamedTuple):
    """What tracing and compiling took by the clock, and of all cores together."""

    trace: float
    compile: float
    trace_processor: float
    compile_processor: float


def compile_step(config: ConfigDict, mesh: Mesh) -> tuple[jax.stages.Compiled, Seconds]:
    """The compiled training step of `config` on a mesh, and what that took."""
    run = Run.of(config)
    _, frozen = run.shardings(mesh)
    times = [(time.perf_counter(), time.process_time())]
    programs = make_programs(config, STAGES[config.stage], mesh, run.frozen)
    whole, split = (NamedSharding(mesh, spec) for spec in (jax.P(), sharding.BATCH_SPEC))
    frozen = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), run.frozen, frozen)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), batch_shapes(config, config.batch_size)
    )
    key = jax.ShapeDtypeStruct(KEY.shape, KEY.dtype, sharding=whole)
    lowered = programs.step.lower(programs.abstract_state, frozen, batch, key)
    times.append((time.perf_counter(), time.process_time()))
    compiled = lowered.compile()
    times.append((time.perf_counter(), time.process_time()))
    (trace, trace_processor), (compilation, compile_processor) = np.diff(times, axis=0)
    return compiled, Seconds(trace, compilation, trace_processor, compile_processor)


def _topology(name: str) -> list:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no TPU here that could be asked
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:  # of several kinds: no libtpu, no such name
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name}: {reason}; TPUs are named as in v5e:2x4, v5p:2x2x2, and need pip install 'flashsr_jax[tpu]'"
        ) from error


class Exchanges(NamedTuple):
    """Collectives of one kind in a program: how many, and the bytes of their results on a device."""

    number: int
    size: int


def step_collectives(text: str) -> dict[str, Exchanges]:
    """{kind: exchanges} of an HLO text; what stands in a loop's body counts once."""
    numbers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for found in COLLECTIVES.finditer(re.sub(r"/\*.*?\*/", "", text)):
        numbers[found["kind"]] += 1
        for array in ARRAY.finditer(found["shape"]):
            elements = math.prod(int(size) for size in array["shape"].split(",") if size)
            sizes[found["kind"]] += elements * max(1, int(array["bits"]) // 8)
    return {kind: Exchanges(number, sizes[kind]) for kind, number in numbers.items()}
