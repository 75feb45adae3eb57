"""Where compiled programs are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "home/.cache/flashsr_jax/xla"),
        ({"FLASHSR_CACHE": "mine"}, "mine/xla"),
        ({"FLASHSR_CACHE": "mine", "JAX_COMPILATION_CACHE_DIR": "jax"}, "jax"),
    ],
)
def test_compiled_programs_are_kept_where_the_user_says(tmp_path, environment, expected):
    inherited = {k: v for k, v in os.environ.items() if k not in ("FLASHSR_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    paths = {name: str(tmp_path / value) for name, value in (environment | {"HOME": "home"}).items()}
    program = (
        "from flashsr_jax.runtime import enable_compilation_cache as enable; print(enable())\n"
        "import jax; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.jit(lambda x: x + 1)(1.0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=inherited | paths, capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()) == tmp_path / expected
    assert any((tmp_path / expected).iterdir())
