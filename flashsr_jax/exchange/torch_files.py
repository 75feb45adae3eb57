"""PyTorch's checkpoint files (`.pth`, `.pt`, `.ckpt` as torch.save writes them since 1.6) without PyTorch.

Such a file is a zip archive: a pickle that says which tensors there are, and their bytes, one entry a storage. The
pickle is a program; the reader here runs none of it but the few instructions that make tensors and containers, and
refuses everything else by name. Whatever the file, reading takes seconds and little memory: what it may ask for is
counted, and nothing of it is hashed, compared or printed that could be larger than it looks, as tuples of tuples are.
Format: pytorch/torch/serialization.py.
"""

import functools
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

STORAGES: dict[str, np.dtype] = {  # torch's class: numpy's type
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
LARGEST_NUMBER = 1 << 40  # of elements
LARGEST_PICKLE = 1 << 22  # bytes; a thousand tensors take 0.1 MB
MOST_INSTRUCTIONS = 1 << 18  # a tensor takes 25 to 40
MOST_ENTRIES = 1 << 15
MOST_ARGUMENTS = 16  # of a function that is called
LONGEST_NAME = 512  # characters of a tensor's name, and of what errors say
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
        raise UserError(f"{path} is damaged: {type(error).__name__}: {_shown(str(error))}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, np.ndarray)} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f"{path} holds no named tensors")
    for name in tensors:
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise UserError(f"{path} has a tensor whose name is none: {_shown(name)}")
    return tensors


def _shown(text: Any) -> str:
    """A text from the file in one short line; of anything else, what it is."""
    if not isinstance(text, str):
        return f"a {type(text).__name__}"
    line = text[:LONGEST_NAME]
    return line if line.isprintable() else ascii(line)


def _read(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) > MOST_ENTRIES:
            raise _Refused(f"it has {len(entries)} entries")
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Refused("it has no data.pkl" if not pickles else "it has several data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in entries and _content(archive, entries[order], len("little")) != b"little":
            raise _Refused("its tensors are big-endian")
        program = _content(archive, entries[pickles[0]], LARGEST_PICKLE)
        return _Unpickler(io.BytesIO(program), path, root, entries).load()


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of an entry, which torch never compresses: what is small in the file is small in memory."""
    name = entry.filename.rpartition("/")[2]
    if entry.file_size > most:
        raise _Refused(f"its {name} has {entry.file_size} bytes")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"its {name} is compressed")
    return archive.read(entry)


# What state dicts are made of. Left out is whatever makes or changes objects in other ways than calling what
# `find_class` returns.
INSTRUCTIONS = """
    PROTO FRAME STOP MARK POP POP_MARK BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT NONE NEWTRUE NEWFALSE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    APPEND APPENDS SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
    BINPERSID
"""


class _Instructions(dict[int, Any]):
    """What the interpreter does for each instruction of one pickle, in which only so many are done."""

    def __init__(self, known: Mapping[int, Any]):
        super().__init__(known)
        self._left = MOST_INSTRUCTIONS

    def __getitem__(self, code: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _Refused(f"its pickle has more than {MOST_INSTRUCTIONS} instructions")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        name = next((op.name for op in pickletools.opcodes if op.code == chr(code)), "unknown")
        raise _Refused(f"its pickle has the instruction {name}")


# The interpreter in Python: the one in C allocates whatever memory a number in the pickle says.
class _Unpickler(pickle._Unpickler):
    stack: list[Any]  # of the interpreter
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in INSTRUCTIONS.split()
    }

    def __init__(self, file: io.BytesIO, path: Path, root: str, entries: Mapping[str, zipfile.ZipInfo]):
        super().__init__(file, fix_imports=False, encoding="utf-8", errors="strict")
        self.dispatch = _Instructions(type(self).dispatch)  # type: ignore[misc]
        self._root, self._entries = root, entries
        self._bytes = np.memmap(path, np.uint8, "r")  # once: each map keeps a file open

    def load_build(self) -> None:
        """Attributes of a dict, such as torch's versions of its modules: passed over."""
        self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict):
            raise _Refused(f"its pickle sets the state of a {type(self.stack[-1]).__name__}")

    def load_reduce(self) -> None:
        """Call one of the functions of `find_class`."""
        arguments = self.stack.pop()
        if type(arguments) is not tuple or len(arguments) > MOST_ARGUMENTS:
            raise ValueError("a call without a tuple of arguments")
        self.stack[-1] = self.stack[-1](*arguments)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())  # type: ignore[attr-defined]

    def _set(self, items: list[Any]) -> None:
        """Put keys and values, which alternate, into the dict on top. Numbers are the keys of an optimizer's state."""
        if not isinstance(self.stack[-1], dict):
            raise ValueError("items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise _Refused(f"its pickle has a {type(key).__name__} as a key")
            self.stack[-1][key] = value

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _StorageType(STORAGES[name])
        allowed = {
            ("collections", "OrderedDict"): _ordered_dict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): functools.partial(_numbers, "size"),
        }
        if (module, name) not in allowed:
            raise _Refused(f"its pickle asks for {_shown(module)}.{_shown(name)}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or len(pid) != 5:
            raise ValueError("a reference that is none to a storage")
        kind, storage_type, key, _location, elements = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise _Refused(f"its pickle refers to {_shown(kind)!r}")
        if not isinstance(key, str) or type(elements) is not int or not 0 <= elements < LARGEST_NUMBER:
            raise ValueError("a storage without a name, or without a number of elements that is asked for")
        return _Storage(storage_type.dtype, key, elements)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_requires_grad_and_hooks: Any) -> np.ndarray:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        (offset,) = _numbers("offset", (offset,))
        shape, stride = _numbers("shape", shape), _numbers("strides", stride)
        if len(shape) != len(stride):
            raise ValueError(f"a tensor of shape {shape} and strides {stride}")
        flat = self._map(storage)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if math.prod(shape) == 0:
            return np.zeros(shape, flat.dtype)
        if last >= len(flat):
            key = _shown(storage.key)
            raise ValueError(f"a tensor that ends at element {last} of storage {key}, which has {len(flat)}")
        bytes_per_step = tuple(step * flat.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_per_step, writeable=False)

    def _map(self, storage: _Storage) -> np.ndarray:
        """A storage's elements, mapped from the file."""
        name = f"storage {_shown(storage.key)}"
        entry = self._entries[f"{self._root}data/{storage.key}"]
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _Refused(f"{name} is compressed or encrypted")
        size = storage.elements * storage.dtype.itemsize
        if size > entry.file_size:
            raise ValueError(f"{name} has {entry.file_size} bytes, {size} are asked for")
        if not size:
            return np.zeros(0, storage.dtype)
        # The name before the data may be longer than the directory says.
        header = self._bytes[entry.header_offset : entry.header_offset + 30].tobytes()
        names, extra = struct.unpack("<HH", header[26:30])
        start = entry.header_offset + 30 + names + extra
        if header[:4] != b"PK\x03\x04" or start + size > len(self._bytes):
            raise ValueError(f"{name} lies beyond the file")
        return self._bytes[start : start + size].view(storage.dtype)


def _ordered_dict(*arguments: Any) -> OrderedDict:
    """An empty one, as torch begins all of its own."""
    if arguments:
        raise ValueError("an OrderedDict that is not empty at first")
    return OrderedDict()


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    """Of a shape, strides or an offset."""
    if type(values) not in (tuple, list) or len(values) > MOST_DIMENSIONS:
        raise ValueError(f"a {name} that is none")
    if not all(type(n) is int and 0 <= n < LARGEST_NUMBER for n in values):
        raise ValueError(f"{name} {', '.join(map(_number, values))}")
    return tuple(values)


def _number(value: Any) -> str:
    return str(value) if type(value) is int and abs(value) < 2**64 else f"a {type(value).__name__}"


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
