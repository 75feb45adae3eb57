"""How the tests compile: their programs are small, and run once or twice."""

import mmap
from importlib.util import find_spec
from pathlib import Path


def quick_compilation() -> str:
    """XLA's flags for it, of those that its version knows: it ends a process at another."""
    flags = ["--xla_backend_optimization_level=0"]
    if _known("xla_cpu_use_fusion_emitters"):
        flags.append("--xla_cpu_use_fusion_emitters=false")  # MLIR's: a third of compiling
    return " ".join(flags)


def _known(flag: str) -> bool:
    library = Path(find_spec("jaxlib").origin).parent / "libjax_common.so"
    if not library.exists():
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b"\0" + flag.encode() + b"\0") >= 0  # a flag's name; of those that are gone there are traces
