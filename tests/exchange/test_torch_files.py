"""PyTorch's files without PyTorch: what torch wrote (tests/golden/torch), what we write, and what nobody should run."""

import io
import itertools
import os
import pickle
import pickletools
import struct
import subprocess
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.cli import main
from flashsr_jax.errors import UserError
from flashsr_jax.exchange.torch_files import ALIGNMENT, load_torch, save_torch

from helpers import GOLDEN

GOLDEN = GOLDEN / "torch"  # written by torch 2.13.0's torch.save
RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.normal(size=(3, 4, 5)).astype(np.float32),
    "scalar": np.float32(2.5),
    "half": RNG.normal(size=7).astype(np.float16),
    "bfloat": RNG.normal(size=(2, 2)).astype(jnp.bfloat16),
    "double": RNG.normal(size=(2, 1)),
    "long": np.arange(5),
    "empty": np.zeros((0, 3), np.float32),
    "bool": np.array([True, False]),
    "transposed": RNG.normal(size=(3, 4)).astype(np.float32).T,
}


@pytest.mark.parametrize("name", ["torch_state_dict", "torch_wrapped"])
def test_what_torch_wrote_is_read(name):
    """Views, shared storages, half precisions, parameters, a wrapped state dict with other things beside it."""
    expected = np.load(GOLDEN / "torch_state_dict.npz")
    tensors = load_torch(GOLDEN / f"{name}.pth")
    assert sorted(tensors) == sorted(expected.files)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(np.asarray(tensor, np.float32), expected[key], err_msg=key)
    assert tensors["bfloat"].dtype == jnp.bfloat16 and tensors["half"].dtype == np.float16


def test_what_is_written_is_read_again(tmp_path):
    save_torch(tmp_path / "a.pth", TENSORS)
    read = load_torch(tmp_path / "a.pth")
    assert list(read) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert read[name].dtype == np.asarray(tensor).dtype and read[name].shape == np.shape(tensor)
        np.testing.assert_array_equal(read[name], tensor, err_msg=name)
    with pytest.raises(ValueError, match="bad: torch has no complex64"):
        save_torch(tmp_path / "b.pth", {"bad": np.zeros(1, np.complex64)})


def test_the_file_has_torchs_form(tmp_path):
    """The same program as torch's own, instruction by instruction, and aligned storages."""
    expected = np.load(GOLDEN / "torch_state_dict.npz")
    ours = {name: expected[name] for name in ("0.weight", "0.bias")}
    save_torch(tmp_path / "a.pth", ours)
    memo = {"BINPUT", "LONG_BINPUT", "BINGET", "PROTO", "FRAME"}

    def program(path, root):
        with zipfile.ZipFile(path) as archive:
            assert {f"{root}/version", f"{root}/byteorder", f"{root}/data/0"} <= set(archive.namelist())
            return [op.name for op, _, _ in pickletools.genops(archive.read(f"{root}/data.pkl")) if op.name not in memo]

    theirs = program(GOLDEN / "torch_state_dict.pth", "torch_state_dict")
    assert (
        {"GLOBAL", "REDUCE", "BINPERSID", "SETITEMS", "STOP"}
        <= set(program(tmp_path / "a.pth", "a"))
        <= {
            *theirs,
            "BININT",
            "TUPLE",
            "EMPTY_TUPLE",
        }
    )
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        for info in archive.infolist():
            if "/data/" in info.filename:
                data = (tmp_path / "a.pth").read_bytes()
                names, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
                assert (info.header_offset + 30 + names + extra) % ALIGNMENT == 0


# ---- what is refused


def checkpoint(path, program: bytes, storages=None, compressed=(), byteorder=b"little"):
    entries = {"data.pkl": program, "byteorder": byteorder}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            kind = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(f"a/{name}", data, kind)
    return path


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def calls(function, *arguments, protocol=2) -> bytes:
    return pickle.dumps({"a": Call(function, *arguments)}, protocol, fix_imports=False)


def tensor(kind="FloatStorage", elements=4, offset=0, shape=(4,), stride=(1,), key="0", tag="storage") -> bytes:
    """A state dict of one tensor, as torch pickles it."""

    def number(value):
        return (
            b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else b"\x8a\x09" + value.to_bytes(9, "little")
        )

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride)]
    storage = (
        b"(" + text(tag) + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(elements) + b"tQ"
    )
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + b"".join(numbers)
    return b"\x80\x02}(" + text("a") + call + b"\x89ccollections\nOrderedDict\n)RtRu."


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"(" * depth + b"t" * depth + b"."


DATA = {"0": np.arange(4, dtype=np.float32).tobytes()}
HOSTILE = {
    "os.system": (calls(os.system, "touch hacked"), "asks for .*system"),
    "eval": (calls(eval, "open('hacked', 'w')"), "asks for .*eval"),
    "exec": (calls(exec, "open('hacked', 'w')", protocol=4), "asks for .*exec"),
    "open": (calls(open, "hacked", "w"), "asks for .*open"),
    "subprocess": (calls(subprocess.Popen, ["touch", "hacked"]), "asks for subprocess.Popen"),
    "getattr": (calls(getattr, "", "upper"), "asks for .*getattr"),
    "a nested name": (b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.__init_subclass__\x93.", "asks for collections"),
    "torch's own loader": (b"\x80\x02ctorch\nload\nX\x06\x00\x00\x00hacked\x85R.", "asks for torch.load"),
    "a storage by class": (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "asks for torch.storage._load_from_bytes"),
    "numpy": (calls(np.fromfile, "x"), "asks for numpy"),
    "an extension": (b"\x80\x02\x82\x01.", "instruction EXT1"),
    "an instance": (b"\x80\x02(icollections\nOrderedDict\n.", "instruction INST"),
    "a new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
    "a textual reference": (b"\x80\x02Pstorage\n.", "instruction PERSID"),
    "a state": (tensor()[:-2] + b"}bu.", "sets the state of a"),
    "another reference": (tensor(tag="module"), "refers to 'module'"),
    "complex numbers": (tensor("ComplexFloatStorage"), "asks for torch.ComplexFloatStorage"),
    "beyond its storage": (tensor(offset=1), "ends at element 4"),
    "far beyond": (tensor(shape=(2,), stride=(2**30,)), "ends at element"),
    "a negative offset": (tensor(offset=-1), "offset -1"),
    "a negative stride": (tensor(stride=(-1,)), "strides"),
    "overflowing numbers": (tensor(shape=(2**60,)), "shape"),
    "more elements than bytes": (tensor(elements=5), "has 16 bytes, 20 are asked for"),
    "a negative number of elements": (tensor(elements=-1), "asked for"),
    "shape without strides": (tensor(stride=()), "shape"),
    "no such storage": (tensor(key="7"), "data/7"),
    "another folder's file": (tensor(key="../../etc/passwd"), "etc/passwd"),
    "a tensor without a storage": (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(NJ\x00\x00\x00\x00))tRs.",
        "storage",
    ),
    "memory by a number": (b"\x80\x02Nr\xff\xff\xff\xff.", "holds no named tensors"),
    "a long text that is not there": (b"\x80\x02X\xff\xff\xff\x7fabc.", "is damaged"),
    "depth": (nested(100_000), "holds no named tensors|damaged"),
    "a list": (pickle.dumps([1, 2], 2), "holds no named tensors"),
    "numbers as names": (tensor().replace(b"}(X\x01\x00\x00\x00a", b"}(K\x01"), "holds no named tensors"),
    "nothing": (b"", "is damaged"),
    "no end": (tensor()[:-1], "is damaged"),
    "an empty stack": (b"\x80\x02R.", "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_but_tensors_and_containers(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, reason = HOSTILE[name]
    path = checkpoint("a.pth", program, DATA)
    with pytest.raises(UserError, match=reason) as refused:
        load_torch(path)
    assert str(refused.value).startswith("a.pth")
    assert [path.name for path in Path().iterdir()] == ["a.pth"]


def test_other_archives_are_refused(tmp_path):
    def refused(path):
        with pytest.raises(UserError) as error:
            load_torch(path)
        return str(error.value)

    path = tmp_path / "a.pth"
    assert "no checkpoint at" in refused(tmp_path / "none.pth")
    assert "is no checkpoint of PyTorch 1.6 or later" in refused(GOLDEN / "torch_old_format.pth")
    path.write_bytes(b"")
    assert "is no checkpoint of PyTorch" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    assert "it has no data.pkl" in refused(path)
    for name, said in {
        "data/0": "storage 0 is",
        "data.pkl": "its data.pkl is",
        "byteorder": "its byteorder is",
    }.items():
        assert f"{said} compressed" in refused(checkpoint(path, tensor(), DATA, compressed=[name]))
    assert "big-endian" in refused(checkpoint(path, tensor(), DATA, byteorder=b"big"))
    with zipfile.ZipFile(checkpoint(path, tensor(), DATA), "a") as archive:
        archive.writestr("b/data.pkl", tensor())
    assert "several data.pkl" in refused(path)
    np.testing.assert_array_equal(load_torch(checkpoint(path, tensor(), DATA))["a"], np.arange(4))


# ---- what asks for time and memory


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


# (t, t) of (t, t) of ...: 60 instructions to write, 2 ** 60 steps to hash, compare or print.
DEEP = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60
REBUILD, FLOATS, DICT = (
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
)
LONG = text("x" * 1_000_000)


KIND, KEY, FOUR, ZERO, SHAPE, STRIDE = (
    text("storage"),
    text("0"),
    number(4),
    number(0),
    number(4) + b"\x85",
    number(1) + b"\x85",
)


def reference(kind=KIND, key=KEY, elements=FOUR) -> bytes:
    return b"(" + kind + FLOATS + key + text("cpu") + elements + b"tQ"


def rebuilt(storage=None, offset=ZERO, shape=SHAPE, stride=STRIDE) -> bytes:
    return REBUILD + b"(" + (storage or reference()) + offset + shape + stride + b"\x89" + DICT + b")RtR"


def bomb(value: bytes, key: bytes = b"X\x01\x00\x00\x00a") -> bytes:
    return b"\x80\x02" + DEEP + b"0}" + key + value + b"s."


BOMBS = {
    "as a key": (bomb(b"N", b"h\x00"), "has a tuple as a key"),
    "as a key of an OrderedDict": (bomb(DICT + b"](h\x00N\x86e\x85R"), "an OrderedDict that is not empty"),
    "as a kind": (bomb(rebuilt(reference(kind=b"h\x00"))), "refers to 'a tuple'"),
    "as a storage": (bomb(rebuilt(reference(key=b"h\x00"))), "a storage without a name"),
    "as a number of elements": (bomb(rebuilt(reference(elements=b"h\x00"))), "without a number of elements"),
    "as a shape": (bomb(rebuilt(shape=b"h\x00")), "shape a tuple, a tuple"),
    "as an offset": (bomb(rebuilt(offset=b"h\x00")), "offset a tuple"),
    "as a reference": (bomb(b"h\x00Q"), "a reference that is none"),
    "as a value": (bomb(b"h\x00"), "holds no named tensors"),
    "called": (bomb(b"h\x00)R"), "object is not callable"),
    "as a size": (bomb(b"ctorch\nSize\nh\x00\x85R"), "size a tuple"),
    "a text as a size, often": (bomb(LONG + b"q\x01" + b"0ctorch\nSize\nh\x01\x85R" * 10_000), "a size that is none"),
    "a text as arguments, often": (
        bomb(LONG + b"q\x01" + (b"0" + DICT + b"h\x01R") * 10_000),
        "a call without a tuple",
    ),
    "a long name": (bomb(rebuilt(), LONG), "a tensor whose name is none: xxx"),
    "a name that clears the screen": (bomb(rebuilt(), text("\x1b[2J\n")), "a tensor whose name is none: '.x1b.2J"),
    "a long class": (b"\x80\x02ctorch\n" + b"x" * 1_000_000 + b"\n.", "asks for torch.xxx"),
    "a long kind": (bomb(rebuilt(reference(kind=LONG))), "refers to 'xxx"),
    "a long storage": (bomb(rebuilt(reference(key=LONG))), "is damaged: KeyError"),
    "instructions": (b"\x80\x02" + b"N0" * 2_000_000 + b".", "has more than 262144 instructions"),
    "a large pickle": (b"\x80\x02" + b"N0" * 2_500_000 + b".", "its data.pkl has 5000003 bytes"),
    "a number of a million digits": (
        bomb(rebuilt(offset=b"\x8b" + struct.pack("<i", 500_000) + b"\x7f" * 500_000)),
        "offset a int",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_archive_takes_long_or_much_memory(name, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, reason = BOMBS[name]
    checkpoint("a.pth", program, DATA)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    before, began = peak_mb(), time.process_time()
    with pytest.raises(UserError, match=reason) as refused:
        load_torch("a.pth")
    assert time.process_time() - began < 5 and peak_mb() - before < 500
    assert len(str(refused.value)) < 1000 and str(refused.value).isprintable()


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_entries_are_bounded(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for number in range(33_000):
            archive.writestr(f"a/{number}", b"")
    with pytest.raises(UserError, match="it has 33000 entries"):
        load_torch(tmp_path / "a.pth")
    path = checkpoint(tmp_path / "b.pth", tensor(), DATA, byteorder=bytes(1 << 26), compressed=["byteorder"])
    with pytest.raises(UserError, match="its byteorder has 67108864 bytes"):
        load_torch(path)


def test_an_import_says_in_one_line_why_it_refuses(tmp_path, capfd):
    path = checkpoint(tmp_path / "a.pth", BOMBS["as a key"][0], DATA)
    assert main(["weights", "import", str(path), "-o", str(tmp_path / "out.safetensors")]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {path}: its pickle has a tuple as a key")


def test_more_tensors_than_files_may_be_open(tmp_path):
    names = [f"{number}.weight" for number in range(3000)]
    save_torch(tmp_path / "a.pth", dict.fromkeys(names, np.arange(3.0)))
    read = load_torch(tmp_path / "a.pth")
    assert list(read) == names and all(tensor.tolist() == [0, 1, 2] for tensor in read.values())


# ---- what is damaged


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read_but_never_crash(seed, tmp_path):
    """Truncations, flipped bits, overwritten stretches: a UserError, or tensors."""
    whole = (GOLDEN / "torch_state_dict.pth").read_bytes()
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.pth"
    outcomes = {"read": 0, "refused": 0}
    for round_ in range(250):
        data = bytearray(whole)
        if round_ % 3 == 0:
            data = data[: rng.integers(len(data))]
        elif round_ % 3 == 1:
            for place in rng.integers(len(data), size=rng.integers(1, 9)):
                data[place] ^= 1 << rng.integers(8)
        else:
            start, length = rng.integers(len(data)), rng.integers(1, 60)
            data[start : start + length] = rng.bytes(length)
        path.write_bytes(data)
        try:
            sum(float(np.asarray(x, np.float64).sum()) for x in load_torch(path).values() if x.size < 10_000)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_a_program_of_random_instructions_never_crashes(tmp_path):
    """Programs made of the pieces of real ones, in any order."""
    with zipfile.ZipFile(GOLDEN / "torch_state_dict.pth") as archive:
        program = archive.read("torch_state_dict/data.pkl")
    places = [place for _, _, place in pickletools.genops(io.BytesIO(program))] + [len(program)]
    pieces = [program[a:b] for a, b in itertools.pairwise(places)]
    rng = np.random.default_rng(0)
    for _ in range(400):
        mixed = b"".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(2, 60)))
        path = checkpoint(tmp_path / "a.pth", b"\x80\x02" + mixed + b".", DATA)
        try:
            assert isinstance(load_torch(path), (dict, OrderedDict))
        except UserError as error:
            assert str(error).startswith(str(path))
