"""Where compiled programs are kept, and what memory is."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flashsr_jax.devices import runtime
from flashsr_jax.devices.runtime import COMPILED, compiler_options, limit_heap


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
    inherited["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # which holds, too
    paths = {name: str(tmp_path / value) for name, value in (environment | {"HOME": "home"}).items()}
    program = (
        "from flashsr_jax.devices.runtime import enable_compilation_cache as enable; print(enable())\n"
        "import jax\n"
        "jax.jit(lambda x: x + 1)(1.0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=inherited | paths, capture_output=True, text=True, check=True
    )
    assert Path(result.stdout.strip()) == tmp_path / expected
    assert any((tmp_path / expected).iterdir())


def test_options_of_the_compiler_are_those_it_knows(monkeypatch):
    assert compiler_options("cpu") and not compiler_options("tpu")
    monkeypatch.setattr(runtime, "CPU_OPTIONS", {"xla_cpu_which_was_renamed": "1"})
    assert compiler_options.__wrapped__("cpu") == {}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_a_compilation_is_trimmed_after_once_however_often_a_process_upscales(monkeypatch):
    listeners = []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", listeners.append)
    limit_heap.cache_clear()
    for _ in range(3):
        limit_heap()
    assert len(listeners) == 1
    listeners[0](COMPILED, 0.1)


@pytest.mark.training
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_blocks_go_back_to_the_system():
    """Of 240 MB in blocks with small ones between them. Without the limit they stay."""
    program = (
        "import sys, numpy as np\n"
        "from flashsr_jax.devices.runtime import limit_heap\n"
        "if sys.argv[1] == 'limited': limit_heap()\n"
        "np.ones(31 << 20, np.uint8)\n"  # the first free block of that size is the lesson
        "blocks, small = [], []\n"
        "for _ in range(30):\n"
        "    blocks.append(np.ones(8 << 20, np.uint8)); small.append(np.ones(1 << 16, np.uint8))\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "before = resident(); blocks.clear(); print(before - resident())"
    )
    freed = {
        heap: int(subprocess.run([sys.executable, "-c", program, heap], capture_output=True, text=True).stdout)
        for heap in ("limited", "as it is")
    }
    assert freed["limited"] > 200e6
    assert freed["as it is"] < 40e6


@pytest.mark.training
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_what_a_compilation_leaves_between_small_blocks_goes_back_to_the_system():
    """Of 200 MB in small blocks, every other one freed. Without the limit they stay."""
    program = (
        "import sys, jax, numpy as np\n"
        "from flashsr_jax.devices.runtime import limit_heap\n"
        "if sys.argv[1] == 'limited': limit_heap()\n"
        "x = jax.numpy.ones(3)\n"
        "blocks = [np.ones(1 << 16, np.uint8) for _ in range(3200)]\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "del blocks[::2]; before = resident(); jax.jit(lambda x: x * 2 + 1)(x); print(before - resident())"
    )
    freed = {
        heap: int(subprocess.run([sys.executable, "-c", program, heap], capture_output=True, text=True).stdout)
        for heap in ("limited", "as it is")
    }
    assert freed["limited"] > 80e6
    assert freed["as it is"] < 20e6
