"""How JAX is set up on the user's machine: where compiled programs are kept between runs."""

import os
from pathlib import Path

import jax

from flashsr_jax.errors import UserError


def enable_compilation_cache() -> Path:
    """Keep compiled programs on disk, so that the next run of the same model starts at once; returns the folder.

    The folder is `$JAX_COMPILATION_CACHE_DIR` where the user has set it, else `$FLASHSR_CACHE/xla`, else
    `~/.cache/flashsr_jax/xla`. Call it before the first compilation. JAX warns, and goes on, where it is not writable.
    """
    if jax.config.jax_compilation_cache_dir is None:
        root = os.environ.get("FLASHSR_CACHE") or Path.home() / ".cache" / "flashsr_jax"
        jax.config.update("jax_compilation_cache_dir", str(Path(root).expanduser() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return Path(jax.config.jax_compilation_cache_dir)


def choose_device(platform: str | None) -> jax.Device:
    """Make the first device of a platform (cpu, gpu, tpu; None: the best there is) the one that computes.

    Raises UserError where there is none.
    """
    if platform is None:
        return jax.devices()[0]
    try:
        device = jax.devices(platform)[0]
    except RuntimeError as error:
        raise UserError(f"--device {platform}: there is none here; there is {jax.default_backend()}") from error
    jax.config.update("jax_default_device", device)
    return device
