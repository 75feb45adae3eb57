"""How bright windows are, and more of the bright ones: a high band is learnt where there is one.

Letters: N samples of a window, T frames, K bins, W samples of a frame.
"""

import logging
from pathlib import Path

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.data.dataset import CorruptRecord, Windows
from flashsr_jax.errors import reason
from flashsr_jax.files import replacing

LOGGER = logging.getLogger(__name__)
FRAME, STEP = 2048, 512
LOW_HZ, HIGH_HZ = (0.0, 4000.0), (8000.0, 16_000.0)
LOUDEST = 0.1  # of the frames
BRIGHT_DB = -30.0  # what is called bright where shares are told
DULLEST_DB = -100.0  # also of silence
CUTS = 2  # of a window, whose values are averaged


def brightness_db(x_N: np.ndarray) -> float:
    """Power of 8-16 kHz in the tenth of the frames in which it is loudest, against that under 4 kHz in its own loudest
    tenth, in dB, -100 or more, of a signal (N,) at 48 kHz, N >= 2048."""
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, FRAME)[::STEP]
    power_TxK = np.square(np.abs(np.fft.rfft(frames_TxW * np.hanning(FRAME).astype(np.float32))))
    hz_K = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)

    def loudest(low_hz: float, high_hz: float) -> float:
        power_T = np.sort(power_TxK[:, (hz_K >= low_hz) & (hz_K < high_hz)].sum(axis=1))
        return float(power_T[-max(1, int(LOUDEST * len(power_T))) :].mean())

    low, high = loudest(*LOW_HZ), loudest(*HIGH_HZ)
    return float(10 * np.log10(max(high / low, 10 ** (DULLEST_DB / 10)))) if low else DULLEST_DB


def brightness_of(windows: Windows) -> np.ndarray:
    """dB of each window, the mean of two cuts. Measured once, and kept in the dataset's folder, in a file
    for each split, class and length of windows."""
    recordings = windows.recordings
    file = Path(recordings.folder) / f"brightness-{recordings.split}-{windows.class_name}-{windows.samples}.npy"
    if file.exists():
        return np.load(file)
    LOGGER.info("measuring how bright %d windows of %s are, once for all runs", len(windows), windows.class_name)
    rng = np.random.default_rng(0)
    values = np.array([np.mean([_of_cut(windows, i, rng) for _ in range(CUTS)]) for i in range(len(windows))])
    try:
        with replacing(file) as partial:
            np.save(partial, values)
    except OSError as error:  # a dataset that others share need not be one's own to write to
        LOGGER.warning("%s cannot be kept, and the next run measures again: %s", file.name, reason(error))
    return values


def _of_cut(windows: Windows, index: int, rng: np.random.Generator) -> float:
    try:
        return brightness_db(windows.cut(index, rng)[0])
    except CorruptRecord:  # named where it would be trained on
        return DULLEST_DB


def more_of_the_bright(windows: Windows, limits_db: tuple[float, ...]) -> Windows:
    """The windows, each once more for every limit that its brightness exceeds."""
    values = brightness_of(windows)
    times = 1 + (values[:, None] > np.array(limits_db)).sum(axis=1)
    bright = values > BRIGHT_DB
    LOGGER.info(
        "%s: %.0f %% of %d windows are bright (8-16 kHz within %.0f dB of under 4 kHz); as they are drawn, %.0f %%",
        windows.class_name,
        100 * bright.mean(),
        len(windows),
        -BRIGHT_DB,
        100 * times[bright].sum() / times.sum(),
    )
    return windows.repeated(times)
