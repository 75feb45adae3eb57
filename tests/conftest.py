"""Shared by all tests: eight CPU devices, a compilation cache that outlives the run, a small dataset, trained runs."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

from helpers import RECORDINGS, ROOT
from helpers.xla import xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", xla_flags())
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # an operator takes 50 ms; there are thousands

import jax
import pytest

from flashsr_jax.devices.runtime import enable_compilation_cache

from helpers.training import train_all

MOST_RESIDENT_GB = 2.0  # of one worker: CI has 8 GB
jax.config.update("jax_num_cpu_devices", 8)
enable_compilation_cache()


def pytest_configure() -> None:
    """Ctrl-C and a closed terminal are heard: a shell's background jobs, and what `nohup` starts, ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config) -> int:
    """Two workers, since compiling, most of the work, keeps one core busy.

    None for files by name, nor for parity at the published size, which takes 6 GB.
    """
    by_name = config.args_source is pytest.Config.ArgsSource.ARGS
    return 0 if by_name or config.option.markexpr == "full" else 2


def pytest_collection_modifyitems(config, items) -> None:
    """Slow tests run only where -m asks for them by name."""
    if "slow" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if "slow" in item.keywords])
        items[:] = [item for item in items if "slow" not in item.keywords]


@pytest.fixture(scope="module", autouse=True)
def programs_of_some_files():
    """Compiled programs serve the next file of tests, too, until they fill the memory that two workers share."""
    yield
    if _resident_gb() > MOST_RESIDENT_GB:
        jax.clear_caches()


def _resident_gb() -> float:
    """Memory of this process; infinite where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9 if statm.exists() else float("inf")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """The committed recordings, as `flashsr data build` builds them."""
    from flashsr_jax.data.build import build_dataset

    def build(folder: Path) -> None:  # in this process: others would import for longer than they decode
        build_dataset([RECORDINGS], folder, csv=RECORDINGS / "recordings.csv", workers=0)

    return _shared(tmp_path_factory, "dataset", build)


@pytest.fixture(scope="session")
def runs(tmp_path_factory, dataset) -> dict[str, Path]:
    """All stages trained in a row at micro size; {stage: folder}. Tests read them and change nothing."""
    folder = _shared(tmp_path_factory, "runs", lambda folder: train_all(folder, dataset))
    return {path.name: path for path in folder.iterdir()}


def _shared(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all processes that share these tests (pytest -n)."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
