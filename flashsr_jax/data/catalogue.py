"""Recordings of datasets in the TFDS catalogue, such as vctk."""

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError


def parsed(text: str) -> tuple[str, str]:
    """(name, class) of NAME=CLASS."""
    name, _, class_name = text.partition("=")
    if not name or class_name not in CLASSES:
        raise UserError(f"{text}: write NAME=CLASS with a class of {', '.join(CLASSES)}, such as vctk=speech", "tfds")
    return name, class_name


def entries(name: str) -> Iterator[tuple[str, str, int]]:
    """(dataset, split, number) of all recordings of a dataset, which is downloaded and prepared.

    Raises UserError for a dataset without an audio feature, and where there is none of that name.
    """
    built = builder(name)
    if "audio" not in built.info.features:
        raise UserError(f"{name}: this dataset has no audio", "tfds")
    for split in built.info.splits:
        yield from ((name, split, number) for number in range(len(source(name, split))))


def fetched(entry: tuple[str, str, int], path: Path) -> str:
    """Write an entry as the sound file `path`; returns its group, which is the speaker where there is one."""
    name, split, number = entry
    example = source(name, split)[number]
    audio_N = np.asarray(example["audio"])
    if np.issubdtype(audio_N.dtype, np.integer):
        audio_N = audio_N.astype(np.int16)
    subtype = "PCM_16" if audio_N.dtype == np.int16 else "FLOAT"
    sf.write(path, audio_N, builder(name).info.features["audio"].sample_rate, subtype=subtype)
    return f"{name}/{example['speaker']}" if "speaker" in example else name


@functools.cache
def source(name: str, split: str) -> Any:
    """Random access to a split's examples."""
    return builder(name).as_data_source(split)


@functools.cache
def builder(name: str) -> Any:
    """A dataset of the TFDS catalogue, downloaded and prepared."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"{name}: catalogue datasets need TensorFlow: pip install 'flashsr_jax[tf]'", "tfds")
    import tensorflow_datasets as tfds

    try:
        built = tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"{name}: no such dataset in the TFDS catalogue", "tfds") from error
    built.download_and_prepare()
    return built
