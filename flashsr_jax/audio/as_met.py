"""Inputs as they are met: well resampled, of 16 bits, with hiss, or from a codec; then what upscaling begins with.

All of it runs on the host: codecs do, and so does the reading of where a band ends.
Letters: N samples, K bins.
"""

import functools
import io
from collections.abc import Callable

import numpy as np
import soundfile as sf
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.audio.resampling import fitted, reach_hz
from flashsr_jax.audio.stretches import stretches_of

PEAK_DB = (-60.0, 0.0)  # of the input, full scale 0 dB
CODEC_PEAK_DB = (-30.0, 0.0)  # of what is encoded: mp3 leaves hardly anything of what is quieter
FLOOR_DB = (-100.0, -50.0)  # root mean square of hiss
LEAST_DB = 40.0  # from the hiss up to the peak: a sound that drowns says nothing about its high band
TILT_DB = (-3.0, 3.0)  # of hiss, per octave
WELL_RESAMPLED = 0.75  # of the inputs: what files were resampled by, mostly
SILENCE = 1e-4  # a peak of -80 dBFS, under which training rejects a window
RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
USUAL_RATES = (44_100, 48_000)  # also of files that hold less
# Of each codec: libsndfile's names, its rates, and the range of compression levels: 140 to 22 kbit/s of one channel.
CODECS = {
    "mp3": (("MP3", "MPEG_LAYER_III"), RATES, (0.0, 0.8)),
    "vorbis": (("OGG", "VORBIS"), RATES, (0.3, 0.95)),
    "opus": (("OGG", "OPUS"), (8000, 12_000, 16_000, 24_000, 48_000), (0.5, 0.93)),
}
# A band that is read as ending lower ends where a floor has hidden it, or a codec has cut it. One that is read as
# ending lower than this share of its cutoff, or higher, is misread: the reading is made for whole recordings.
READ = (0.5, 1.2)


def low_resolution(x_N: np.ndarray, lowpass_filter: LowpassFilter, rng: np.random.Generator) -> np.ndarray:
    """What a file holds of a 48 kHz signal (N,): mostly what a good resampler (soxr) leaves of it at twice the filter's
    cutoff, a steep end and nothing over it; else what the filter leaves, by `simulate_low_resolution`."""
    if rng.random() >= WELL_RESAMPLED:
        return simulate_low_resolution(x_N, lowpass_filter)
    rate = 2 * lowpass_filter.cutoff_hz
    return fitted(_resampled(_resampled(x_N, SAMPLE_RATE, rate), rate, SAMPLE_RATE), len(x_N))


def as_met(lr_N: np.ndarray, cutoff_hz: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A low resolution (N,) at 48 kHz as a file holds it and `flashsr upscale` shows it to the networks, and the
    cutoff in Hz after that.

    At a peak of 0 to -60 dBFS and a rate that can hold its band it gets, by equal chances, the rounding of 16 bits
    (with triangular dither or without), hiss at -100 to -50 dBFS, or what mp3, Vorbis or Opus leave of it, at 0 to -30
    dBFS. Then comes the low-pass at the end of its band, as it is found. The level of the result is the input's.
    Silence stays.
    """
    peak = np.abs(lr_N).max()
    if peak < SILENCE:
        return lr_N, cutoff_hz
    kind = KINDS[rng.integers(len(KINDS))]
    peak_db = rng.uniform(*(CODEC_PEAK_DB if kind is codec else PEAK_DB))
    gain = np.float32(10 ** (peak_db / 20) / peak)
    rate, change = kind(cutoff_hz, peak_db, rng)
    x_N = _resampled(gain * lr_N, SAMPLE_RATE, rate)
    x_N = np.asarray(change(x_N), np.float32)
    bands, end_hz = _bands(x_N, rate, cutoff_hz)
    x_N = fitted(_resampled(x_N, rate, SAMPLE_RATE), len(lr_N))
    return bands.before(x_N[None], 0)[0] / gain, min(cutoff_hz, end_hz)


def _bands(x_N: np.ndarray, rate: int, cutoff_hz: float) -> tuple[Bands | BandsByStretch, float]:
    """What upscaling does before the networks to a file of such samples, and where in Hz its band ends then.

    Where a short window is misread, as at the cutoff that it has.
    """
    stretches = stretches_of(x_N[None], rate)
    ((found, *others),) = stretches
    reach = reach_hz(rate)
    if others or found.passes or not READ[0] <= found.cutoff_hz / cutoff_hz <= READ[1]:
        return Bands(cutoff_hz, lowpass=True).within(reach), min(cutoff_hz, reach)
    return BandsByStretch.of(stretches, lowpass=True).within(reach), min(found.end_hz, reach)


Change = Callable[[np.ndarray], np.ndarray]  # of samples at the file's rate


def sixteen_bits(cutoff_hz: float, peak_db: float, rng: np.random.Generator) -> tuple[int, Change]:
    """A rate, and rounding of 16 bits."""
    dithered = rng.random() < 0.5

    def change(x_N: np.ndarray) -> np.ndarray:
        dither_N = rng.random(len(x_N)) - rng.random(len(x_N)) if dithered else 0.0
        return np.clip(np.rint(32_768 * x_N + dither_N), -32_768, 32_767) / 32_768

    return _rate(RATES, cutoff_hz, rng), change


def hiss(cutoff_hz: float, peak_db: float, rng: np.random.Generator) -> tuple[int, Change]:
    """A rate, and steady noise, white or up to 3 dB brighter or darker an octave."""
    level = 10 ** (rng.uniform(FLOOR_DB[0], min(FLOOR_DB[1], peak_db - LEAST_DB)) / 20)
    tilt_db = rng.uniform(*TILT_DB)

    def change(x_N: np.ndarray) -> np.ndarray:
        noise_K = np.fft.rfft(rng.standard_normal(len(x_N)))
        noise_K *= np.maximum(np.arange(len(noise_K)), len(noise_K) / 100) ** (tilt_db / (20 * np.log10(2)))
        noise_N = np.fft.irfft(noise_K, len(x_N))
        return x_N + level / np.sqrt(np.mean(noise_N**2)) * noise_N

    return _rate(RATES, cutoff_hz, rng), change


def codec(cutoff_hz: float, peak_db: float, rng: np.random.Generator) -> tuple[int, Change]:
    """A rate that a codec has, and its round trip."""
    names, rates, levels = CODECS[tuple(CODECS)[rng.integers(len(CODECS))]]
    rate = _rate(rates, cutoff_hz, rng)
    return rate, functools.partial(round_trip, sample_rate=rate, names=names, compression=rng.uniform(*levels))


KINDS = (sixteen_bits, hiss, codec)


def _rate(rates: tuple[int, ...], cutoff_hz: float, rng: np.random.Generator) -> int:
    """A rate for a file: the lowest that holds the band, or a usual one."""
    usual = tuple(rate for rate in rates if rate in USUAL_RATES)
    if rng.random() < 0.5:
        return usual[rng.integers(len(usual))]
    return min(rate for rate in rates if rate >= 2 * cutoff_hz)


def round_trip(x_N: np.ndarray, sample_rate: int, names: tuple[str, str], compression: float) -> np.ndarray:
    """What is left of a signal (N,) around [-1, 1] in a file of libsndfile's format and subtype `names`.

    `compression` is libsndfile's compression level, 0 (least) to 1.
    """
    with io.BytesIO() as file:
        sf.write(file, x_N, sample_rate, names[1], format=names[0], compression_level=compression)
        file.seek(0)
        y_N, rate = sf.read(file, dtype="float32")
    if rate != sample_rate or len(y_N) != len(x_N):
        raise RuntimeError(f"{names[1]}: {len(x_N)} samples at {sample_rate} Hz came back as {len(y_N)} at {rate} Hz")
    return y_N


def _resampled(x_N: np.ndarray, rate: float, to_rate: float) -> np.ndarray:
    return x_N if rate == to_rate else soxr.resample(x_N, rate, to_rate, "VHQ")
