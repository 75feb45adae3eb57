"""Shared by all tests: eight CPU devices, a compilation cache that outlives the run, and one small dataset."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))

import jax  # noqa: E402
import pytest  # noqa: E402

from flashsr_jax.runtime import enable_compilation_cache  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
enable_compilation_cache()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """The committed recordings, built as a user builds them."""
    from flashsr_jax.cli import main

    out = tmp_path_factory.mktemp("data") / "dataset"
    recordings = ROOT / "tests" / "recordings"
    assert main(["data", "build", str(recordings), "--csv", str(recordings / "recordings.csv"), "--out", str(out)]) == 0
    return out
