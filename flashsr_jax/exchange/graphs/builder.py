"""An ONNX graph that grows node by node; its kernels are stored in float32, float16 or int8."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # that of opset 20: older runtimes read it, too
DTYPES = ("float32", "float16", "int8")


class Graph:
    """Nodes, constants, inputs and outputs. Values are their names; all of them are float32, if not said otherwise.

    dtype: of the kernels of `product`. float16: the product is computed in it, between casts. int8: symmetric, with a
    scale an output channel, computed in float32.
    """

    def __init__(self, name: str, dtype: str = "float32"):
        self.name, self.dtype = name, dtype
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[tuple, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: Counter[str] = Counter()

    def input(self, name: str, shape: tuple[int | str, ...]) -> str:
        """An input; axes given as text are dynamic."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, shape: tuple[int | str, ...], value: str) -> None:
        """Make a value an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, value: Any, path: str = "constant") -> str:
        """A tensor: floats become float32, integers int64; equal ones are stored once."""
        array = np.asarray(value)
        if array.dtype.kind == "f" and array.dtype != np.float16:
            array = array.astype(np.float32)
        elif array.dtype.kind == "i" and array.dtype != np.int8:
            array = array.astype(np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._tensors:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), self._unique(path))
            self._tensors[key] = tensor
        return self._tensors[key].name

    def node(self, op: str, *inputs: str, path: str = "", **attributes: Any) -> str:
        """The output of a node; `path` is the layer that it is part of."""
        return self.nodes(op, 1, *inputs, path=path, **attributes)[0]

    def nodes(self, op: str, outputs: int, *inputs: str, path: str = "", **attributes: Any) -> list[str]:
        """The outputs of a node that has several."""
        name = self._unique(f"{path}/{op}" if path else op)
        names = [name] if outputs == 1 else [f"{name}:{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def scaled(self, x: str, factor: Any, path: str = "") -> str:
        """x times a constant."""
        return self.node("Mul", x, self.constant(factor), path=path)

    def shifted(self, x: str, offset: Any, path: str = "") -> str:
        """x plus a constant."""
        return self.node("Add", x, self.constant(offset), path=path)

    def product(
        self,
        op: str,
        x: str,
        kernel: np.ndarray,
        axis: int,
        path: str,
        bias: np.ndarray | None = None,
        **attributes: Any,
    ) -> str:
        """Conv, ConvTranspose or MatMul of x with a kernel, whose output channels are on `axis`."""
        if self.dtype == "int8":
            others = tuple(i for i in range(kernel.ndim) if i != axis)
            largest = np.abs(kernel).max(others, keepdims=True)
            scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
            stored = self.constant(np.rint(kernel / scale).astype(np.int8), f"{path}/kernel")
            scales = self.constant(scale.reshape(-1), f"{path}/scale")
            inputs = [x, self.node("DequantizeLinear", stored, scales, path=path, axis=axis)]
        elif self.dtype == "float16":
            x = self.node("Cast", x, path=path, to=TensorProto.FLOAT16)
            inputs = [x, self.constant(kernel.astype(np.float16), f"{path}/kernel")]
            bias = None if bias is None else bias.astype(np.float16)
        else:
            inputs = [x, self.constant(kernel, f"{path}/kernel")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{path}/bias"))
        y = self.node(op, *inputs, path=path, **attributes)
        return self.node("Cast", y, path=path, to=TensorProto.FLOAT) if self.dtype == "float16" else y

    def model(self, version: str) -> onnx.ModelProto:
        """The finished model, checked. `version` is the producer's."""
        tensors = list(self._tensors.values())
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="flashsr_jax", producer_version=version
        )
        onnx.checker.check_model(model)
        return model

    def _unique(self, path: str) -> str:
        self._names[path] += 1
        return path if self._names[path] == 1 else f"{path}_{self._names[path]}"
