"""How the tests compile and run: their programs are small, and run once or twice, on machines that others share."""

import mmap
from importlib.util import find_spec
from pathlib import Path

FLAGS = {
    "xla_cpu_use_fusion_emitters": "false",  # MLIR's: a third of compiling
    # Eight devices on two cores that have other work: one may wait for the last of the others for longer than 40 s, at
    # which XLA ends the process.
    "xla_cpu_collective_call_terminate_timeout_seconds": "600",
    "xla_cpu_collective_timeout_seconds": "600",
}


def xla_flags() -> str:
    """XLA's flags for them, of those that its version knows: it ends a process at another."""
    flags = [f"--{name}={value}" for name, value in FLAGS.items() if _known(name)]
    return " ".join(["--xla_backend_optimization_level=0", *flags])


def _known(flag: str) -> bool:
    library = Path(find_spec("jaxlib").origin).parent / "libjax_common.so"
    if not library.exists():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b"\0" + flag.encode() + b"\0") >= 0  # a flag's name; of those that are gone there are traces
