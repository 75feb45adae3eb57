"""A training step as a list of operations, read from its jaxpr: FLOPs, bytes moved, and bytes that live at once.

Nothing is compiled. What XLA would do is modelled: pointwise operations are computed where they are used, and only
what a convolution, a matrix product, a loop or another opaque operation reads or writes takes memory.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from flashsr_jax.models.flops import inner_jaxprs, product_flops

CALLS = ("jit", "pjit", "closed_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call", "shard_map")
VIEWS = ("reshape", "squeeze", "expand_dims", "copy", "stop_gradient")
POINTWISE = frozenset(
    f"""
    abs add add_any and atan2 bitcast_convert_type broadcast_in_dim ceil clamp complex concatenate conj
    convert_element_type cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow iota is_finite le
    log log1p logistic lt max min mul name ne neg nextafter not or pad population_count pow random_bits random_fold_in
    random_seed random_split random_unwrap random_wrap real reduce_precision rem rev round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh slice split sqrt square stack sub tan tanh
    threefry2x32 transpose unstack xor {" ".join(VIEWS)}
    """.split()
)
PARTIAL = ("slice", "dynamic_slice", "gather")  # read no more than they write
SOURCES = 4  # large arrays that one fused operation reads, at most; past it the intermediate value is stored


@dataclass
class Operation:
    """One kernel: FLOPs in products, the values that it reads and writes, and how often it runs."""

    name: str
    flops: float
    contraction: int  # products: length of the sums; 0 for others
    low_precision: bool  # products: of 16-bit operands
    reads: list[int]
    writes: list[int]
    times: int  # trips of the scans around it
    in_while: bool  # runs once a trip of a loop whose number of trips is not known


@dataclass
class Program:
    """Operations in order, the size in bytes of every value, and which values the caller owns."""

    operations: list[Operation] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    early: set[int] = field(default_factory=set)  # values stored for the number of their sources alone
    arguments: set[int] = field(default_factory=set)
    results: set[int] = field(default_factory=set)


def read_program(function: Callable, *args: Any, like: Program | None = None) -> Program:
    """The program of `function(*args)`, arrays or `jax.ShapeDtypeStruct`s; it is traced only.

    `like` is the same function's at other sizes: what takes memory there does here.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    reader = _Reader(like.early if like else None)
    environment = {}
    for var in (*jaxpr.constvars, *jaxpr.invars):
        environment[var] = reader.new_value(var)
        reader.program.arguments.add(environment[var])
    reader.read(jaxpr, environment, 1, False)
    outputs = [environment[var] for var in jaxpr.outvars if not isinstance(var, Literal)]
    reader.stored(outputs, 1, False)
    reader.program.results.update(outputs)
    return reader.program


class _Reader:
    def __init__(self, early: set[int] | None) -> None:
        self.program, self._early = Program(), early
        self._sources: dict[int, Any] = {}  # of values that are not stored: the stored ones that they are computed from

    def new_value(self, var: Var | Literal) -> int:
        self.program.sizes.append(_bytes(var.aval))
        return len(self.program.sizes) - 1

    def read(self, jaxpr: Jaxpr, environment: dict, times: int, in_while: bool) -> None:
        """Append the operations of `jaxpr`, whose inputs are in `environment`; its other variables are put there."""
        for equation in jaxpr.eqns:
            inputs = [environment[var] for var in equation.invars if not isinstance(var, Literal)]
            primitive = equation.primitive.name
            if primitive in ("scan", "while", "cond"):
                self._loop(equation, environment, times, in_while)
            elif primitive in CALLS:
                self._call(next(inner_jaxprs(equation.params)), equation, environment, times, in_while)
            elif primitive in VIEWS and len(inputs) == 1:
                environment[equation.outvars[0]] = inputs[0]
            elif primitive in POINTWISE:
                for var in equation.outvars:
                    environment[var] = self._pointwise(var, inputs, times, in_while)
            else:
                fused = primitive.startswith(("reduce_", "argm"))  # a reduction computes what it reads
                reads = self._resolve(inputs) if fused else self.stored(inputs, times, in_while)
                writes = [self.new_value(var) for var in equation.outvars]
                environment.update(zip(equation.outvars, writes, strict=True))
                self._append(primitive, reads, writes, times, in_while, equation)

    def stored(self, values: list[int], times: int, in_while: bool) -> list[int]:
        """The same values, each now in memory."""
        for value in values:
            if value in self._sources:
                self._append("pointwise", self._sources.pop(value), [value], times, in_while)
        return values

    def _append(
        self,
        name: str,
        reads: Iterable[int],
        writes: list[int],
        times: int,
        in_while: bool,
        equation: Any = None,
    ) -> None:
        flops = (product_flops(equation) if equation is not None else None) or 0.0
        low = flops > 0 and all(var.aval.dtype.itemsize <= 2 for var in equation.invars[:2])
        length = _contraction(equation, flops) if flops else 0
        self.program.operations.append(Operation(name, flops, length, low, list(reads), writes, times, in_while))

    def _resolve(self, values: list[int]) -> list[int]:
        return list(dict.fromkeys(source for value in values for source in self._sources.get(value, (value,))))

    def _pointwise(self, var: Var, inputs: list[int], times: int, in_while: bool) -> int:
        value, sources = self.new_value(var), self._resolve(inputs)
        self._sources[value] = tuple(sources)
        large = [source for source in sources if 2 * self.program.sizes[source] >= self.program.sizes[value]]
        if len(large) > SOURCES if self._early is None else value in self._early:
            self.program.early.add(value)
            self.stored([value], times, in_while)
        return value

    def _call(self, jaxpr: Jaxpr, equation: JaxprEqn, environment: dict, times: int, in_while: bool) -> None:
        inside = {var: self.new_value(var) for var in jaxpr.constvars}
        inside |= {
            var: self._outer(outer, environment) for var, outer in zip(jaxpr.invars, equation.invars, strict=True)
        }
        self.read(jaxpr, inside, times, in_while)
        for var, inner in zip(equation.outvars, jaxpr.outvars, strict=True):
            environment[var] = self._outer(inner, inside)

    def _outer(self, var: Var | Literal, environment: dict) -> int:
        return self.new_value(var) if isinstance(var, Literal) else environment[var]

    def _loop(self, equation: JaxprEqn, environment: dict, times: int, in_while: bool) -> None:
        """The body once, between operations that hold the loop's inputs and make its outputs."""
        params, primitive = equation.params, equation.primitive.name
        inputs = self.stored([self._outer(var, environment) for var in equation.invars], times, in_while)
        inside_times = times
        if primitive == "scan":
            body, entering = params["jaxpr"].jaxpr, inputs
            inside_times *= params["length"]
        elif primitive == "while":
            body, entering = params["body_jaxpr"].jaxpr, inputs[params["cond_nconsts"] :]
            in_while = True
        else:
            body, entering = _branch(params), inputs[1:]
        inside = {var: self.new_value(var) for var in body.constvars}
        for var, value in zip(body.invars, entering, strict=True):
            inside[var] = value
            if _bytes(var.aval) != self.program.sizes[value]:  # of what is scanned, a part
                inside[var] = self.new_value(var)
                self._append("slice", [value], [inside[var]], inside_times, in_while)
        self.read(body, inside, inside_times, in_while)
        results = self.stored([self._outer(var, inside) for var in body.outvars], inside_times, in_while)
        writes = [self.new_value(var) for var in equation.outvars]
        environment.update(zip(equation.outvars, writes, strict=True))
        self._append("loop", [*inputs, *results], writes, 0, False)


def _branch(params: dict) -> Jaxpr:
    """The branch of a `cond` that runs: of a choice by platform the one for all others, which is the accelerators'."""
    branches = [branch.jaxpr for branch in params["branches"]]
    platforms = params.get("branches_platforms")
    return branches[platforms.index(None)] if platforms else max(branches, key=lambda jaxpr: len(jaxpr.eqns))


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * (
        4 if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended) else aval.dtype.itemsize
    )


def _contraction(equation: Any, flops: float) -> int:
    return max(1, round(flops / 2 / math.prod(equation.outvars[0].aval.shape)))


@dataclass(frozen=True)
class Scaled:
    """A program at any batch: what it has is linear in the batch, here as pairs (fixed, per window)."""

    operations: list[Operation]
    flops: np.ndarray  # (operations, 2)
    moved: np.ndarray  # (operations, 2): bytes read and written
    alive: np.ndarray  # (operations, 2): bytes of intermediate values during each operation

    @classmethod
    def read(cls, step: Callable, args_of: Callable, batch_sizes: tuple[int, int] = (2, 4)) -> "Scaled":
        """From two readings; `args_of(batch size)` are the arguments of `step`. Raises ValueError where they differ."""
        few = read_program(step, *args_of(batch_sizes[0]))
        many = read_program(step, *args_of(batch_sizes[1]), like=few)
        if [op.name for op in few.operations] != [op.name for op in many.operations]:
            raise ValueError("the step is another program at another batch size")

        def linear(values_of: Callable) -> np.ndarray:
            a, b = (np.asarray(values_of(program), float) for program in (few, many))
            slope = (b - a) / (batch_sizes[1] - batch_sizes[0])
            return np.stack([a - slope * batch_sizes[0], slope], axis=1)

        return cls(few.operations, *map(linear, (_flops, _moved, _alive)))

    def total_flops(self, batch: float, while_trips: float = 0) -> float:
        """FLOPs of a step."""
        return float(self.flops @ (1, batch) @ self._runs(while_trips))

    def peak(self, batch: float, fixed_share: float = 1.0) -> float:
        """Bytes of intermediate values alive at once, at most; those of fixed size count `fixed_share` of theirs."""
        return float((self.alive @ (fixed_share, batch)).max())

    def seconds(self, batch: float, while_trips: float, time_of: Callable) -> dict[str, float]:
        """Seconds by kind of operation; `time_of(flops, contraction, low precision, bytes read and written)` is of all
        operations, as arrays."""
        contraction = np.array([op.contraction for op in self.operations])
        low_precision = np.array([op.low_precision for op in self.operations])
        each = time_of(self.flops @ (1, batch), contraction, low_precision, self.moved @ (1, batch))
        total: dict[str, float] = defaultdict(float)
        for op, seconds in zip(self.operations, each * self._runs(while_trips), strict=True):
            total[op.name] += float(seconds)
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def _runs(self, while_trips: float) -> np.ndarray:
        return np.array([op.times * (while_trips if op.in_while else 1) for op in self.operations])


def _flops(program: Program) -> list[float]:
    return [op.flops for op in program.operations]


def _moved(program: Program) -> list[int]:
    def size(values: list[int]) -> int:
        return sum(program.sizes[value] for value in values)

    return [size(op.writes) + size(op.writes if op.name in PARTIAL else op.reads) for op in program.operations]


def _alive(program: Program) -> np.ndarray:
    owned = program.arguments | program.results
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, op in enumerate(program.operations):
        for value in (*op.reads, *op.writes):
            first.setdefault(value, i)
            last[value] = i
    change = np.zeros(len(program.operations) + 1)
    for value in first.keys() - owned:
        change[first[value]] += program.sizes[value]
        change[last[value] + 1] -= program.sizes[value]
    return np.cumsum(change)[:-1]
