"""Objective measures of super-resolution against the original recording, in float64 numpy, at 48 kHz.

Every name says its variant, since papers disagree on what "LSD" is.
Letters: N samples, T frames, W samples of a frame, K bins of an STFT or of a whole signal's transform.
"""

import functools
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft
import scipy.signal

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.evaluate.signals import Unmeasurable, check_lengths, checked

NYQUIST = SAMPLE_RATE / 2


class Stft(NamedTuple):
    """A short-time transform: periodic Hann window, frames centred with reflected edges."""

    n_fft: int
    hop: int


LSD_STFT, LSD_FLOOR = Stft(2048, 512), 1e-8
UNIVERSR_STFT, UNIVERSR_FLOOR = Stft(1024, 256), 1e-6
SSR_EVAL_STFT, SSR_EVAL_EPS = Stft(int(2048 * SAMPLE_RATE / 44_100), SAMPLE_RATE // 100), 1e-12

LOW_BAND = (0.75, 0.85)  # of the cutoff: where low-band measures begin and stop to fade; resamplers droop from 0.85 on
EDGE_FADE = 480  # samples, 10 ms: a high band that is cut off sharply at an edge would click in the low band
SILENT_LOW_BAND = 1e-12  # mean square under which a low band holds nothing: -120 dB of full scale
MAX_SI_SDR_DB = 150.0  # of equal signals, whose ratio would be infinite

FULL_SCALE = (LSD_STFT.n_fft / 4) ** 2  # power of a sine at its peak bin: half the window's sum, squared
LOUDEST = 0.2  # of the frames, by the original's power over the cutoff
LOUD_BANDS_HZ = tuple((low, low + 2000.0) for low in np.arange(0.0, NYQUIST, 2000.0).tolist())
FRAME_RATE = SAMPLE_RATE / HOP  # of log-mels, in Hz
LINE_HZ = 2.0  # on either side of a line
LEAST_SHARE = 1e-6  # of the band's mean: a buzz has nothing between its lines
LINES_FROM = 1.1  # of the cutoff: where `frame_lines_db` begins
CUTOFF_EDGE = 0.1  # of the cutoff, on either side of it: what `cutoff_step_db` compares
SILENT_BAND = 1e-11  # power of a bin, relative to a full-scale sine's: 12 dB over that of 16-bit dither
LEAST_BAND = 1e-15  # of an estimate's, whose gain would be minus infinity in silence

WALL_PASS, WALL_STOP, WALL_STOP_DB = 0.95, 1.03, 100.0

# Which values of a metric are the better ones: lower, higher, nearer to zero.
BETTER: dict[str, Literal["lower", "higher", "zero"]] = {
    "lsd": "lower",
    "lsd_hf": "lower",
    "lsd_lf": "lower",
    "lsd_ssr_eval": "lower",
    "lsd_ssr_eval_hf": "lower",
    "lsd_ssr_eval_lf": "lower",
    "lsd_universr": "lower",
    "lsd_universr_hf": "lower",
    "lsd_universr_lf": "lower",
    "low_band_si_sdr": "higher",
    "low_band_gain_db": "zero",
    "cutoff_step_db": "zero",
    "frame_lines_db": "zero",
    "loud_band_gain_db": "zero",
    "time_offset": "zero",
    "zimtohrli": "lower",
    "visqol": "higher",
}
# Of tables, and of training's evaluations.
PERCEPTUAL = ("zimtohrli", "visqol")  # of `perceptual_metrics`, where they are asked for
MAIN_METRICS = ("lsd", "lsd_hf", "lsd_lf", *PERCEPTUAL, "loud_band_gain_db")


class ReferenceSpectra:
    """An original, transformed once for many estimates and cutoffs; each transform is made when it is first needed.

    Takes a mono signal (N,). With `wall_hz` both it and every estimate are low-passed there before anything else.
    Raises as `lsd` does.
    """

    def __init__(self, reference: np.ndarray, wall_hz: float = 0.0):
        self.wall_hz = wall_hz
        self.signal = self._walled(np.asarray(checked(reference), np.float64))

    def prepared(self, estimate: np.ndarray) -> np.ndarray:
        """An estimate (N,) as it is compared: float64, low-passed at the wall. Raises as `lsd` does."""
        estimate = checked(estimate)
        check_lengths(self.signal, estimate)
        return self._walled(np.asarray(estimate, np.float64))

    def _walled(self, x_N: np.ndarray) -> np.ndarray:
        return lowpass_at_wall(x_N, self.wall_hz) if self.wall_hz else x_N

    @functools.cached_property
    def _lsd_power(self) -> np.ndarray:
        return _power(self.signal, LSD_STFT)

    @functools.cached_property
    def _log_power(self) -> np.ndarray:
        return np.log10(np.maximum(self._lsd_power, LSD_FLOOR))

    @functools.cached_property
    def _universr_log_power(self) -> np.ndarray:
        return _log_power(self.signal, UNIVERSR_STFT, UNIVERSR_FLOOR)

    @functools.cached_property
    def _ssr_eval_power(self) -> np.ndarray:
        return _power(self.signal, SSR_EVAL_STFT)

    @functools.cached_property
    def _fine_power(self) -> np.ndarray:
        return _fine_power(self.signal)

    @functools.cached_property
    def _spectrum(self) -> np.ndarray:
        return _whole_spectrum(self.signal)


def all_metrics(
    reference: np.ndarray | ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float, wall_hz: float = 0.0
) -> dict[str, float]:
    """Every metric of this module by name, of two mono signals (N,); a metric that is not defined for them is absent.

    `wall_hz`: where the original ends, if under 24 kHz (evaluation without `lsd_ssr_eval*`, see `lowpass_at_wall`);
    `ReferenceSpectra` knows its own. The low-band measures are absent where either low band is silent.
    Raises as `lsd` does, and ValueError for a cutoff outside (0, 24000] Hz.
    """
    spectra = reference if isinstance(reference, ReferenceSpectra) else ReferenceSpectra(reference, wall_hz)
    estimate = spectra.prepared(estimate)
    errors = {"lsd": (_lsd_errors, LSD_STFT), "lsd_universr": (_universr_errors, UNIVERSR_STFT)}
    if not spectra.wall_hz:
        errors["lsd_ssr_eval"] = (_ssr_eval_errors, SSR_EVAL_STFT)
    metrics = {}
    for name, (errors_of, stft) in errors.items():
        squared_TxK, bin_ = errors_of(spectra, estimate), _cutoff_bin(cutoff_hz, stft)
        metrics[name] = _distance(squared_TxK)
        metrics[f"{name}_hf"] = _distance(squared_TxK[:, bin_:])
        metrics[f"{name}_lf"] = _distance(squared_TxK[:, :bin_])
    bands = _low_bands(spectra, estimate, cutoff_hz)
    if not bands.silent():
        metrics |= {
            "low_band_si_sdr": _si_sdr(bands),
            "low_band_gain_db": _gain_db(bands),
            "time_offset": _time_offset(bands),
        }
    of_cutoff = {
        "cutoff_step_db": _cutoff_step_db(spectra, estimate, cutoff_hz),
        "frame_lines_db": _frame_lines_db(spectra, estimate, cutoff_hz),
    }
    return metrics | {name: value for name, value in of_cutoff.items() if value is not None}


def lsd(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance of two mono signals (N,): mean over frames of the RMS over bins of log10 power ratios.

    The variant of AERO and AP-BWE: STFT 2048 / hop 512, power clamped at 1e-8. Symmetric; a gain of G dB gives
    |G| / 10. Raises Unmeasurable where lengths differ, a signal is no longer than half a frame or has samples that are
    not finite, and ValueError where one is not mono.
    """
    return _distance(_lsd_errors(*_pair(reference, estimate)))


def lsd_hf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd` over the bins at or above `cutoff_hz`: what super-resolution adds. Raises as `lsd` does."""
    bin_ = _cutoff_bin(cutoff_hz, LSD_STFT)
    return _distance(_lsd_errors(*_pair(reference, estimate))[:, bin_:])


def lsd_lf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd` over the bins under `cutoff_hz`: what super-resolution must keep. Raises as `lsd` does."""
    bin_ = _cutoff_bin(cutoff_hz, LSD_STFT)
    return _distance(_lsd_errors(*_pair(reference, estimate))[:, :bin_])


def lsd_universr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """`lsd` as UniverSR measures it: STFT 1024 / hop 256, power clamped at 1e-6. Raises as `lsd` does."""
    return _distance(_universr_errors(*_pair(reference, estimate)))


def lsd_universr_hf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd_universr` over the bins at or above `cutoff_hz`."""
    bin_ = _cutoff_bin(cutoff_hz, UNIVERSR_STFT)
    return _distance(_universr_errors(*_pair(reference, estimate))[:, bin_:])


def lsd_universr_lf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd_universr` over the bins under `cutoff_hz`."""
    bin_ = _cutoff_bin(cutoff_hz, UNIVERSR_STFT)
    return _distance(_universr_errors(*_pair(reference, estimate))[:, :bin_])


def lsd_ssr_eval(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance as NVSR, AudioSR and FlashSR report it: log10(X^2 / (Y + e)^2 + e), e = 1e-12.

    X and Y are the magnitudes of reference and estimate, STFT 2229 / hop 480, nothing clamped. Not symmetric, and 12
    for two silences: a bin where the reference is digitally silent counts 12 whatever the estimate does.
    Raises as `lsd` does. Source: the package ssr_eval of Liu et al., arXiv:2203.14941.
    """
    return _distance(_ssr_eval_errors(*_pair(reference, estimate)))


def lsd_ssr_eval_hf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd_ssr_eval` over the bins at or above `cutoff_hz`."""
    bin_ = _cutoff_bin(cutoff_hz, SSR_EVAL_STFT)
    return _distance(_ssr_eval_errors(*_pair(reference, estimate))[:, bin_:])


def lsd_ssr_eval_lf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """`lsd_ssr_eval` over the bins under `cutoff_hz`."""
    bin_ = _cutoff_bin(cutoff_hz, SSR_EVAL_STFT)
    return _distance(_ssr_eval_errors(*_pair(reference, estimate))[:, :bin_])


def low_band_si_sdr(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """Scale-invariant signal-to-distortion ratio in dB under the cutoff, within +-150 dB (equal signals: 150).

    Of two mono signals (N,) whose bands fade out between 0.75 and 0.85 of the cutoff, without phase shift, and whose
    edges fade over 10 ms. Raises as `lsd` does, and Unmeasurable where either low band is silent.
    Source: Le Roux et al., arXiv:1811.02508, equation 3.
    """
    return _si_sdr(_sounding_low_bands(reference, estimate, cutoff_hz))


def low_band_gain_db(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """Energy of the estimate over that of the reference in dB, in the band of `low_band_si_sdr`; raises as it does."""
    return _gain_db(_sounding_low_bands(reference, estimate, cutoff_hz))


def time_offset(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """Samples (a whole number) by which the estimate is late; negative: early.

    The highest cross-correlation in the band of `low_band_si_sdr`; raises as it does.
    """
    return _time_offset(_sounding_low_bands(reference, estimate, cutoff_hz))


def cutoff_step_db(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """How far the estimate's level jumps at the cutoff: power of the tenth over it by that of the tenth under it, in dB
    against the same of the reference.

    Of two mono signals (N,), STFT 2048 / hop 512. Under 0 where the added band begins too softly, as behind a gap, over
    0 where too loudly. Raises as `lsd` does, ValueError for a cutoff outside (0, 24000] Hz, and Unmeasurable where the
    tenth over it is over 24 kHz or the reference has under -110 dB of full scale a bin there.
    """
    step = _cutoff_step_db(*_pair(reference, estimate), cutoff_hz)
    if step is None:
        raise Unmeasurable(f"not defined: the original has nothing on one side of {cutoff_hz:g} Hz")
    return step


def _cutoff_step_db(spectra: ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float) -> float | None:
    """None where it is not defined."""
    bin_ = _cutoff_bin(cutoff_hz, LSD_STFT)
    width = max(1, round(CUTOFF_EDGE * cutoff_hz * LSD_STFT.n_fft / SAMPLE_RATE))
    end_hz = WALL_PASS * spectra.wall_hz if spectra.wall_hz else NYQUIST
    if bin_ < width or (1 + CUTOFF_EDGE) * cutoff_hz > end_hz:
        return None
    steps_db = []
    for power_TxK in (_power(estimate, LSD_STFT), spectra._lsd_power):
        power_K = power_TxK.mean(axis=0) / FULL_SCALE
        under, over = power_K[bin_ - width : bin_].mean(), power_K[bin_ : bin_ + width].mean()
        if power_TxK is spectra._lsd_power and min(under, over) < SILENT_BAND:
            return None
        steps_db.append(10 * np.log10(max(over, LEAST_BAND) / max(under, LEAST_BAND)).item())
    return steps_db[0] - steps_db[1]


def frame_lines_db(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> float:
    """How much the estimate buzzes over the cutoff: power within 2 Hz of multiples of 100 Hz, the frame rate of the
    mels that most systems are made of, by the power between them, in dB against the same of the reference.

    Of two mono signals (N,), from 1.1 times the cutoff on, by one transform of each. A vocoder that makes the same of
    every frame has such lines, and no measure of short-time magnitudes sees them. Raises as `lsd` does, ValueError for
    a cutoff outside (0, 24000] Hz, and Unmeasurable for signals under a second, or either's without a band there.
    """
    lines = _frame_lines_db(*_pair(reference, estimate), cutoff_hz)
    if lines is None:
        raise Unmeasurable(f"not defined: under a second, or nothing over {LINES_FROM * cutoff_hz:g} Hz")
    return lines


def _frame_lines_db(spectra: ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float) -> float | None:
    """None where it is not defined."""
    _cutoff_bin(cutoff_hz, LSD_STFT)
    end_hz = WALL_PASS * spectra.wall_hz if spectra.wall_hz else NYQUIST
    if len(estimate) < SAMPLE_RATE or LINES_FROM * cutoff_hz + FRAME_RATE > end_hz:
        return None
    hz_K = scipy.fft.rfftfreq(_fine_length(len(estimate)), 1 / SAMPLE_RATE)
    band_K = (hz_K > LINES_FROM * cutoff_hz) & (hz_K < end_hz)
    line_K = np.abs(hz_K - np.round(hz_K / FRAME_RATE) * FRAME_RATE) < LINE_HZ
    lines_db = []
    for power_K in (_fine_power(estimate), spectra._fine_power):
        near, between, mean = (power_K[of].mean() for of in (band_K & line_K, band_K & ~line_K, band_K))
        if mean < SILENT_BAND:
            return None
        near, between = (max(power, LEAST_SHARE * mean) for power in (near, between))
        lines_db.append(10 * np.log10(near / between).item())
    return lines_db[0] - lines_db[1]


def _fine_power(x_N: np.ndarray) -> np.ndarray:
    """Power (K,) by the bins of one transform under a Hann window, of a noise as a bin of `LSD_STFT` has it."""
    window_N = scipy.signal.windows.hann(len(x_N), sym=False)
    power_K = np.square(np.abs(scipy.fft.rfft(x_N * window_N, _fine_length(len(x_N)))))
    return power_K * LSD_STFT.n_fft / len(x_N) / FULL_SCALE


def _fine_length(samples: int) -> int:
    return scipy.fft.next_fast_len(samples, real=True)


def loud_band_gains_db(
    reference: np.ndarray | ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float
) -> dict[float, float]:
    """{lower edge in Hz: 10 log10 of the estimate's mean power over the original's} of each 2 kHz band over the cutoff,
    in the fifth of the frames in which the original's power over the cutoff is largest.

    Of two mono signals (N,), STFT 2048 / hop 512; bands begin at multiples of 2 kHz. Under 0 where the estimate is too
    soft: a regression is, while its LSD looks good. The bands end at the original's own wall, where it has one; one in
    which the original has under -110 dB of full scale a bin is absent. Raises as `lsd` does, and ValueError for a
    cutoff outside (0, 24000] Hz.
    """
    spectra = reference if isinstance(reference, ReferenceSpectra) else ReferenceSpectra(reference)
    estimate = spectra.prepared(estimate)
    original_TxK = spectra._lsd_power
    end_hz = WALL_PASS * spectra.wall_hz if spectra.wall_hz else NYQUIST
    over_T = original_TxK[:, _cutoff_bin(cutoff_hz, LSD_STFT) :].sum(axis=1)
    loud_T = np.argsort(over_T, kind="stable")[-max(1, round(LOUDEST * len(over_T))) :]
    estimate_TxK = _power(estimate, LSD_STFT)
    hz_K = np.fft.rfftfreq(LSD_STFT.n_fft, 1 / SAMPLE_RATE)
    gains = {}
    for low_hz, high_hz in LOUD_BANDS_HZ:
        if low_hz < cutoff_hz or high_hz > end_hz:
            continue
        band_K = (hz_K >= low_hz) & (hz_K < high_hz)
        ours, theirs = (float(power[loud_T][:, band_K].mean()) / FULL_SCALE for power in (estimate_TxK, original_TxK))
        if theirs > SILENT_BAND:
            gains[low_hz] = 10 * np.log10(max(ours, LEAST_BAND) / theirs).item()
    return gains


def lowpass_at_wall(x: np.ndarray, wall_hz: float) -> np.ndarray:
    """A mono signal (N,) without what is above a codec's wall, (N,) float64: linear phase, delay taken out.

    Flat to 0.95 of the wall, 100 dB down from 1.03 of it. For reference and estimate before every metric where the
    reference ends at a wall: what is left above falls under the clamps of `lsd` and `lsd_universr`. `lsd_ssr_eval`
    has no clamp and compares what is left as before, so that it is not defined for such references.
    Raises ValueError for a wall outside (0, 24000) Hz.
    """
    if not 0 < wall_hz < NYQUIST:
        raise ValueError(f"the wall must lie in (0, {NYQUIST:g}) Hz, got {wall_hz:g}")
    return scipy.signal.oaconvolve(np.asarray(x, np.float64), _wall_taps(float(wall_hz)), mode="same")


@functools.lru_cache(maxsize=16)
def _wall_taps(wall_hz: float) -> np.ndarray:
    taps, beta = scipy.signal.kaiserord(WALL_STOP_DB, (WALL_STOP - WALL_PASS) * wall_hz / NYQUIST)
    middle = (WALL_STOP + WALL_PASS) / 2 * wall_hz
    return scipy.signal.firwin(taps | 1, middle, window=("kaiser", beta), fs=SAMPLE_RATE)  # odd: a whole delay


def _pair(reference: np.ndarray, estimate: np.ndarray) -> tuple[ReferenceSpectra, np.ndarray]:
    spectra = ReferenceSpectra(reference)
    return spectra, spectra.prepared(estimate)


def _cutoff_bin(cutoff_hz: float, stft: Stft) -> int:
    """The first bin at or above the cutoff, at most the last one."""
    if not 0 < cutoff_hz <= NYQUIST:
        raise ValueError(f"the cutoff must lie in (0, {NYQUIST:g}] Hz, got {cutoff_hz:g}")
    hz_K = np.fft.rfftfreq(stft.n_fft, 1 / SAMPLE_RATE)
    return int(np.searchsorted(hz_K[:-1], cutoff_hz))


def _distance(squared_TxK: np.ndarray) -> float:
    return float(np.mean(np.sqrt(np.mean(squared_TxK, axis=-1))))


def _lsd_errors(spectra: ReferenceSpectra, estimate: np.ndarray) -> np.ndarray:
    return (spectra._log_power - _log_power(estimate, LSD_STFT, LSD_FLOOR)) ** 2


def _universr_errors(spectra: ReferenceSpectra, estimate: np.ndarray) -> np.ndarray:
    return (spectra._universr_log_power - _log_power(estimate, UNIVERSR_STFT, UNIVERSR_FLOOR)) ** 2


def _ssr_eval_errors(spectra: ReferenceSpectra, estimate: np.ndarray) -> np.ndarray:
    magnitude_TxK = np.sqrt(_power(estimate, SSR_EVAL_STFT))
    return np.log10(spectra._ssr_eval_power / (magnitude_TxK + SSR_EVAL_EPS) ** 2 + SSR_EVAL_EPS) ** 2


def _log_power(x_N: np.ndarray, stft: Stft, floor: float) -> np.ndarray:
    return np.log10(np.maximum(_power(x_N, stft), floor))


def _power(x_N: np.ndarray, stft: Stft) -> np.ndarray:
    if len(x_N) <= stft.n_fft // 2:
        raise Unmeasurable(f"LSD needs more than {stft.n_fft // 2} samples, got {len(x_N)}")
    padded = np.pad(x_N, stft.n_fft // 2, mode="reflect")
    frames_TxW = np.lib.stride_tricks.sliding_window_view(padded, stft.n_fft)[:: stft.hop]
    spectrum_TxK = scipy.fft.rfft(frames_TxW * scipy.signal.get_window("hann", stft.n_fft), overwrite_x=True)
    return spectrum_TxK.real**2 + spectrum_TxK.imag**2


class _LowBands(NamedTuple):
    """Spectra (K,) of both signals under the cutoff, of transforms twice as long as the `samples` of the signals."""

    reference_K: np.ndarray
    estimate_K: np.ndarray
    samples: int

    def silent(self) -> bool:
        limit = SILENT_LOW_BAND * self.samples
        return any(_inner(x_K, x_K, self.samples) < limit for x_K in (self.reference_K, self.estimate_K))


def _transform_length(samples: int) -> int:
    return scipy.fft.next_fast_len(2 * samples, real=True)  # so that no lag of a correlation wraps around


def _whole_spectrum(x_N: np.ndarray) -> np.ndarray:
    fades = min(1.0, 2 * EDGE_FADE / len(x_N))
    return scipy.fft.rfft(x_N * scipy.signal.windows.tukey(len(x_N), fades), _transform_length(len(x_N)))


def _low_bands(spectra: ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float) -> _LowBands:
    samples = len(estimate)
    fade_K = _fade(_transform_length(samples), float(cutoff_hz))
    return _LowBands(
        spectra._spectrum[: len(fade_K)] * fade_K, _whole_spectrum(estimate)[: len(fade_K)] * fade_K, samples
    )


@functools.lru_cache(maxsize=16)
def _fade(length: int, cutoff_hz: float) -> np.ndarray:
    """Gain of the low band's bins: 1, then half a cosine to 0, where it ends."""
    relative_K = np.fft.rfftfreq(length, 1 / SAMPLE_RATE) / cutoff_hz
    begin, end = LOW_BAND
    relative_K = relative_K[relative_K < end]
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((relative_K - begin) / (end - begin), 0, 1))


def _sounding_low_bands(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float) -> _LowBands:
    _cutoff_bin(cutoff_hz, LSD_STFT)
    bands = _low_bands(*_pair(reference, estimate), cutoff_hz)
    if bands.silent():
        raise Unmeasurable(f"not defined: a signal is silent under {cutoff_hz:g} Hz")
    return bands


def _inner(x_K: np.ndarray, y_K: np.ndarray, samples: int) -> float:
    """Inner product of two signals by their spectra (Parseval); only the bin of 0 Hz has no mirror image."""
    products_K = x_K.real * y_K.real + x_K.imag * y_K.imag
    return float(2 * products_K.sum() - products_K[0]) / _transform_length(samples)


def _si_sdr(bands: _LowBands) -> float:
    reference_K, estimate_K, samples = bands
    scale = _inner(estimate_K, reference_K, samples) / _inner(reference_K, reference_K, samples)
    target_K = scale * reference_K
    noise_K = estimate_K - target_K
    least = 10 ** (-MAX_SI_SDR_DB / 10) * _inner(estimate_K, estimate_K, samples)
    target, noise = (max(_inner(x_K, x_K, samples), least) for x_K in (target_K, noise_K))
    return 10 * np.log10(target / noise).item()


def _gain_db(bands: _LowBands) -> float:
    reference_K, estimate_K, samples = bands
    energies = _inner(estimate_K, estimate_K, samples), _inner(reference_K, reference_K, samples)
    return 10 * np.log10(energies[0] / energies[1]).item()


def _time_offset(bands: _LowBands) -> float:
    reference_K, estimate_K, samples = bands
    correlation = scipy.fft.irfft(estimate_K * reference_K.conj(), _transform_length(samples))
    lag = int(np.argmax(correlation))
    return float(lag if lag < samples else lag - len(correlation))
