"""How JAX is set up on the user's machine: where compiled programs are kept, which device computes, what memory it
keeps."""

import ctypes
import functools
import os
from pathlib import Path

import jax

from flashsr_jax.errors import UserError
from flashsr_jax.files import cache_folder


def enable_compilation_cache() -> Path:
    """Keep compiled programs on disk, so that the next run of the same model starts at once; returns the folder.

    The folder is `$JAX_COMPILATION_CACHE_DIR` where the user has set it, else `$FLASHSR_CACHE/xla`, else
    `~/.cache/flashsr_jax/xla`; programs that take under 0.3 s are not kept, or as the user has set
    `$JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`. Call it before the first compilation. JAX warns, and goes on, where
    the folder is not writable.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return Path(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]


# XLA for CPUs gives convolutions and matrix products to YNNPACK, too. It plans each anew in every process, which takes
# longer than the product, and then is no faster than what they were computed by before (docs/performance.md).
CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


@functools.cache
def compiler_options(platform: str) -> dict[str, str | bool]:
    """Options for XLA's compiler on a platform (cpu, gpu, tpu), as `jax.jit` takes them; none where XLA has not heard
    of them, since their names are not promised to stay."""
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=CPU_OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
COMPILED = "/jax/core/compile/backend_compile_duration"


@functools.cache  # or a process that upscales a hundred times trims a hundred times after each compilation
def limit_heap() -> None:
    """Have memory given back to the system once it is free. Does nothing without glibc's malloc.

    By default the first free blocks of up to 32 MB teach glibc to keep such blocks on its heap, where the smaller ones
    between them hold them, and every thread of the compiler gets a heap of its own: at the published size a sixth of
    all memory. What the compiler leaves free among the small blocks is a twentieth more.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 22)
    libc.mallopt(M_ARENA_MAX, 1)

    def trim(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)


def choose_device(platform: str | None) -> jax.Device:
    """Make the first device of a platform (cpu, gpu, tpu; None: the best there is) the one that computes.

    Raises UserError where there is none.
    """
    if platform is None:
        return jax.devices()[0]
    try:
        device = jax.devices(platform)[0]
    except RuntimeError as error:
        raise UserError(f"{platform}: there is none here; there is {jax.default_backend()}", "device") from error
    jax.config.update("jax_default_device", device)
    return device
