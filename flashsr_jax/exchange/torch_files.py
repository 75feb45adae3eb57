"""PyTorch's checkpoint files (`.pth`, `.pt`, `.ckpt` as torch.save writes them since 1.6) without PyTorch.

Such a file is a zip archive: a pickle that says which tensors there are, and their bytes, one entry a storage. The
pickle is a program; the reader here runs none of it but the few instructions that make tensors and containers, and
refuses everything else by name. Format: pytorch/torch/serialization.py.
"""

import io
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from flashsr_jax.errors import UserError

STORAGES = {  # torch's class: numpy's type
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
MOST_DIMENSIONS = 16
LARGEST_PICKLE = 1 << 26  # bytes; a thousand tensors take 0.1 MB
ALIGNMENT = 64  # of the writer's storages in the file, as torch aligns them
BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
)


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    elements: int


class _Refused(Exception):
    """Something in the pickle that is neither a tensor nor a container."""


def load_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint, {name: array}; arrays are read from the file when they are used (memory-mapped).

    A checkpoint is a dict of tensors, or holds one under `state_dict` or `model`. Nothing of the file is executed, and
    PyTorch is not needed. Raises UserError naming the file where it is missing, not of this format, damaged, or asks
    for anything but tensors and containers.
    """
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        content = _read(Path(path))
    except _Refused as refused:
        raise UserError(f"{path}: {refused}; only tensors and containers are read, and nothing was run") from None
    except BROKEN as error:
        with Path(path).open("rb") as file:
            archive = file.read(2) == b"PK"
        if not archive:
            raise UserError(f"{path} is no checkpoint of PyTorch 1.6 or later (a zip archive)") from error
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, np.ndarray)} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f"{path} holds no named tensors")
    return tensors


def _read(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Refused("it has no data.pkl" if not pickles else "it has several data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise _Refused("its tensors are big-endian")
        if entries[pickles[0]].file_size > LARGEST_PICKLE:
            raise _Refused(f"its data.pkl has {entries[pickles[0]].file_size} bytes")
        reader = _Unpickler(io.BytesIO(archive.read(pickles[0])), path, root, entries)
        return reader.load()


# What state dicts are made of. Left out is whatever makes or changes objects in other ways than calling what
# `find_class` returns.
INSTRUCTIONS = """
    PROTO FRAME STOP MARK POP POP_MARK BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT NONE NEWTRUE NEWFALSE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    APPEND APPENDS SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
    BINPERSID
"""


CODES = [getattr(pickle, name)[0] for name in INSTRUCTIONS.split()]


# The interpreter in Python: the one in C allocates whatever memory a number in the pickle says.
class _Unpickler(pickle._Unpickler):
    stack: list[Any]  # of the interpreter
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in INSTRUCTIONS.split()
    }

    def __init__(self, file: io.BytesIO, path: Path, root: str, entries: Mapping[str, zipfile.ZipInfo]):
        super().__init__(file, fix_imports=False, encoding="utf-8", errors="strict")
        self._path, self._root, self._entries = path, root, entries

    def load_build(self) -> None:
        """Attributes of a dict, such as torch's versions of its modules: passed over."""
        self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict):
            raise _Refused(f"its pickle sets the state of a {type(self.stack[-1]).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:
            (code,) = error.args
            if isinstance(code, int) and code not in self.dispatch:
                name = next((op.name for op in pickletools.opcodes if op.code == chr(code)), "unknown")
                raise _Refused(f"its pickle has the instruction {name}") from None
            raise

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }
        if (module, name) not in allowed:
            raise _Refused(f"its pickle asks for {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: tuple) -> _Storage:
        kind, storage_type, key, _location, elements = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise _Refused(f"its pickle refers to {kind!r}")
        if not isinstance(key, str) or not isinstance(elements, int):
            raise ValueError(f"storage {key!r} of {elements!r} elements")
        return _Storage(storage_type.dtype, key, elements)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_requires_grad_and_hooks: Any) -> np.ndarray:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        shape, stride = tuple(shape), tuple(stride)
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"a tensor of shape {shape} and strides {stride}")
        if not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
            raise ValueError(f"a tensor of shape {shape}, strides {stride} and offset {offset}")
        flat = self._map(storage)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if math.prod(shape) == 0:
            return np.zeros(shape, flat.dtype)
        if last >= len(flat):
            raise ValueError(f"a tensor that ends at element {last} of storage {storage.key}, which has {len(flat)}")
        bytes_per_step = tuple(step * flat.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_per_step, writeable=False)

    def _map(self, storage: _Storage) -> np.ndarray:
        """A storage's elements, mapped from the file."""
        entry = self._entries[f"{self._root}data/{storage.key}"]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _Refused(f"storage {storage.key} is compressed or encrypted")
        size = storage.elements * storage.dtype.itemsize
        if not 0 <= size <= entry.file_size:
            raise ValueError(f"storage {storage.key} has {entry.file_size} bytes, {size} are asked for")
        if not size:
            return np.zeros(0, storage.dtype)
        with self._path.open("rb") as file:  # the name before the data may be longer than the directory says
            file.seek(entry.header_offset)
            header = file.read(30)
        names, extra = struct.unpack("<HH", header[26:30])
        start = entry.header_offset + 30 + names + extra
        if header[:4] != b"PK\x03\x04" or start + size > self._path.stat().st_size:
            raise ValueError(f"storage {storage.key} lies beyond the file")
        return np.memmap(self._path, np.uint8, "r", start, (size,)).view(storage.dtype)


def _parameter(data: Any, *_requires_grad_and_hooks: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise ValueError("a parameter that is no tensor")
    return data


def save_torch(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors as a state dict that `torch.load(path, weights_only=True)` takes; needs no PyTorch.

    `path` is overwritten (callers write to a temporary name). Raises ValueError for a type that torch does not have.
    """
    names = {dtype: name for name, dtype in STORAGES.items()}
    program = [b"\x80\x02", _global("collections", "OrderedDict"), b")R", b"("]
    storages = []
    for key, (name, tensor) in enumerate(tensors.items()):
        array = np.ascontiguousarray(tensor)
        if array.dtype not in names:
            raise ValueError(f"{name}: torch has no {array.dtype}")
        strides = tuple(step // array.itemsize for step in array.strides) if array.size else (1,) * array.ndim
        storage = [_text("storage"), _global("torch", names[array.dtype]), _text(str(key)), _text("cpu")]
        program += [_text(name), _global("torch._utils", "_rebuild_tensor_v2"), b"("]
        program += [b"(", *storage, _integer(array.size), b"tQ"]
        program += [_integer(0), _tuple(tensor.shape), _tuple(strides if tensor.ndim else ()), b"\x89"]
        program += [_global("collections", "OrderedDict"), b")R", b"tR"]
        storages.append(array)
    program += [b"u."]

    root = Path(path).name.split(".")[0] or "archive"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(f"{root}/data.pkl"), b"".join(program))
        archive.writestr(_entry(f"{root}/byteorder"), b"little")
        for key, array in enumerate(storages):
            info = _entry(f"{root}/data/{key}")
            # Padding in the header's extra field, under an identifier that no one uses, aligns the data.
            begins = archive.fp.tell() + 30 + len(info.filename) + 4  # type: ignore[union-attr]
            info.extra = struct.pack("<2sH", b"FB", -begins % ALIGNMENT) + bytes(-begins % ALIGNMENT)
            archive.writestr(info, array.tobytes())
        archive.writestr(_entry(f"{root}/version"), b"3\n")


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
