"""What may be done to a window's bands beside the networks: low-pass of the input, splice and gain of the output.

All by zero-phase masks on the window's spectrum, whose wrap-around falls into the context that is thrown away.
Letters: C channels, N samples at 48 kHz, K bins.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from scipy import fft, ndimage

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.stretches import Stretch

SPLICE = (0.8, 0.95)  # of the cutoff: where the splice is, which is where any input still has its level
STEEP_SPLICE = (0.93, 0.99)  # the same where the band ends steeply, as most files' does
LOWPASS = 1.06  # of the band's end: where the low-pass, which begins there, has taken all
SHOULDER = 1.02  # of the cutoff: where the low-pass has taken all while the band's shoulder holds a floor alone
ONLY_FLOOR_DB, SOUND_DB = 4.0, 10.0  # over a floor: where a band is it, and where sound
FLOOR_BLOCK = 1440  # samples, 30 ms, of its levels
ROUNDING = 1e-6  # of the loudest sample: what a float32 transform and its inverse leave, on any processor
CROSSFADE = 3840  # samples from one stretch's treatment to the next's


@dataclasses.dataclass(frozen=True)
class Bands:
    """What to do about the cutoff of an input, from its first sample to its last.

    lowpass: take away what the input has over the end of its band, a floor or the rests that a codec leaves, before the
    networks see it, and let the band end as that of the inputs they were trained on (`as_resampled`). A steady floor
    comes back where there is nothing else: the networks' guess at a high band for it would be a step. end_hz: that end;
    None: the cutoff.
    keep_low_band: put the input's own band under the cutoff in the place of the networks', with `lowpass` so far up as
    its end is steep.
    high_band_gain_db: gain of what is over the cutoff in the output.
    """

    cutoff_hz: float
    lowpass: bool = False
    keep_low_band: bool = False
    high_band_gain_db: float = 0.0
    end_hz: float | None = None

    def before(self, x: np.ndarray, start: int = 0) -> np.ndarray:
        """The input (..., N) as the networks get it; `start` is its first sample's time."""
        if not self.lowpass or self.cutoff_hz >= SAMPLE_RATE / 2:
            return x
        return as_resampled(self.low_passed(x), self.cutoff_hz)

    def low_passed(self, x: np.ndarray) -> np.ndarray:
        """x (..., N) without what is over the end of its band."""
        if self._end_hz >= SAMPLE_RATE / 2:
            return x
        low = _masked(x, low_mask(x.shape[-1], self._end_hz, (1.0, LOWPASS)))
        floor = self._floor(x, low)
        if floor is None:
            return low
        band = _masked(x, low_mask(x.shape[-1], self.cutoff_hz, (1.0, SHOULDER)))
        return band + _sound(_density(x, self.cutoff_hz, LOWPASS * self._end_hz), floor) * (low - band)

    def after(self, x: np.ndarray, y: np.ndarray, start: int = 0) -> np.ndarray:
        """The output (..., N) of the networks for the input x."""
        if self.lowpass:
            y = self._with_floor(x, y)
        made = y
        if self.keep_low_band:
            y = made + _masked(x - made, self._splice(x))
        if self.high_band_gain_db:
            y = y + np.float32(10 ** (self.high_band_gain_db / 20) - 1) * self.added(x, made)
        return y

    def added(self, x: np.ndarray, y: np.ndarray, start: int = 0) -> np.ndarray:
        """The part of an output (..., N) that is the networks', over the splice, for the input x."""
        return y - _masked(y, self._splice(x))

    def over(self, y: np.ndarray, start: int, edges: tuple[float, float]) -> np.ndarray:
        """The part of a signal (..., N) over the cutoff, of which it begins within `edges`."""
        return y - _masked(y, low_mask(y.shape[-1], self.cutoff_hz, edges))

    def _splice(self, x: np.ndarray) -> np.ndarray:
        """Gain (..., K) of the input in the output, one less of which is the networks'."""
        gentle_K = low_mask(x.shape[-1], self.cutoff_hz, SPLICE)
        if not self.lowpass:
            return gentle_K
        given_K = fft.rfft(x.astype(np.float32)) * low_mask(x.shape[-1], self._end_hz, (1.0, LOWPASS))
        cutoff = round(self.cutoff_hz * x.shape[-1] / SAMPLE_RATE)
        steep = _lacking(given_K, _image(given_K, cutoff), cutoff)
        return gentle_K + steep * (low_mask(x.shape[-1], self.cutoff_hz, STEEP_SPLICE) - gentle_K)

    @property
    def _end_hz(self) -> float:
        return self.end_hz or self.cutoff_hz

    def _floor(self, x: np.ndarray, low: np.ndarray) -> np.ndarray | None:
        """Mean square per Hz (..., 1) of the steady floor that x has over its end and its low-pass `low` has not; None
        where there is none, or no room to see it."""
        rest, lowest_hz = x - low, LOWPASS * self._end_hz
        highest_hz = min(1.6 * self._end_hz, SAMPLE_RATE / 2)
        nothing = np.abs(rest).max(initial=0) <= ROUNDING * np.abs(x).max(initial=0)
        return None if nothing or highest_hz - lowest_hz < 0.2 * self._end_hz else _steady(rest, lowest_hz, highest_hz)

    def _with_floor(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The output (..., N) with the input's own floor over the cutoff, while it alone is to be heard."""
        floor = self._floor(x, _masked(x, low_mask(x.shape[-1], self._end_hz, (1.0, LOWPASS))))
        if floor is None:
            return y
        reaches_the_top = _steady(x, 0.45 * SAMPLE_RATE, SAMPLE_RATE / 2) > 0.05 * floor  # not of a lower rate
        sound = _sound(_density(x, 0.6 * self.cutoff_hz, 0.9 * self.cutoff_hz), floor)
        sound = np.where(reaches_the_top, sound, 1)
        if (sound >= 1).all():
            return y
        mask_K = low_mask(x.shape[-1], self.cutoff_hz, (1.0, SHOULDER))
        return y + (np.sqrt(sound) - 1) * (y - _masked(y, mask_K)) + np.sqrt(1 - sound) * (x - _masked(x, mask_K))

    def within(self, highest_hz: float) -> "Bands":
        """The same of a band that ends at highest_hz at most: a resampler's filter took what is over that."""
        cutoff_hz, end_hz = (min(hz, highest_hz) for hz in (self.cutoff_hz, self._end_hz))
        return dataclasses.replace(self, cutoff_hz=cutoff_hz, end_hz=end_hz)

    def restored(self, channels: int, start: int, samples: int) -> np.ndarray:
        """Whether each channel (C,) needs the networks in a window."""
        return np.ones(channels, bool)

    @property
    def anything_restored(self) -> bool:
        """Whether any window needs the networks."""
        return True


def bands_of(stretch: Stretch, *, lowpass: bool, keep_low_band: bool, gain_db: float = 0.0) -> Bands | None:
    """`Bands` for a stretch; None where it passes through."""
    return None if stretch.passes else Bands(stretch.cutoff_hz, lowpass, keep_low_band, gain_db, stretch.end_hz)


@dataclasses.dataclass(frozen=True)
class BandsByStretch:
    """`Bands` by channel and stretch of time, each faded into the next; for arrays (C, N) of whole windows.

    parts: of each channel, the first sample of each stretch and what to do there; None: it passes through.
    """

    parts: tuple[tuple[tuple[int, Bands | None], ...], ...]

    @classmethod
    def of(
        cls,
        stretches: tuple[tuple[Stretch, ...], ...],
        *,
        lowpass: bool = False,
        keep_low_band: bool = False,
        high_band_gain_db: float = 0.0,
    ) -> "BandsByStretch":
        """For what `stretches` found; the rest is as in `Bands`."""
        of = functools.partial(bands_of, lowpass=lowpass, keep_low_band=keep_low_band, gain_db=high_band_gain_db)
        return cls(tuple(tuple((round(s.start * SAMPLE_RATE), of(s)) for s in channel) for channel in stretches))

    def before(self, x: np.ndarray, start: int) -> np.ndarray:
        """As `Bands.before`."""
        return self._faded(x, start, lambda bands, c: bands.before(x[c]) if bands else x[c])

    def after(self, x: np.ndarray, y: np.ndarray, start: int) -> np.ndarray:
        """As `Bands.after`: the input itself where it passes through."""
        return self._faded(y, start, lambda bands, c: bands.after(x[c], y[c]) if bands else x[c])

    def added(self, x: np.ndarray, y: np.ndarray, start: int) -> np.ndarray:
        """As `Bands.added`: nothing where the input passes through."""
        return self._faded(y, start, lambda bands, c: bands.added(x[c], y[c]) if bands else np.zeros_like(y[c]))

    def over(self, y: np.ndarray, start: int, edges: tuple[float, float]) -> np.ndarray:
        """As `Bands.over`: nothing where the input passes through."""
        return self._faded(y, start, lambda bands, c: bands.over(y[c], 0, edges) if bands else np.zeros_like(y[c]))

    def within(self, highest_hz: float) -> "BandsByStretch":
        """As `Bands.within`."""

        def within(bands: Bands | None) -> Bands | None:
            return bands and bands.within(highest_hz)

        return BandsByStretch(tuple(tuple((first, within(bands)) for first, bands in parts) for parts in self.parts))

    def restored(self, channels: int, start: int, samples: int) -> np.ndarray:
        """As `Bands.restored`."""
        return np.array([any(bands for bands, _ in self._weights(c, start, samples)) for c in range(channels)])

    @property
    def anything_restored(self) -> bool:
        """As `Bands.anything_restored`."""
        return any(bands for channel in self.parts for _, bands in channel)

    def _faded(self, like: np.ndarray, start: int, of: Any) -> np.ndarray:
        """(C, N): in each channel, of(bands, channel) of the stretches in the window, each with its weight."""
        faded = np.empty(like.shape, np.float32)
        for c in range(len(like)):
            weights = self._weights(c, start, like.shape[-1])
            if len(weights) == 1:  # exactly, whatever rounding would do
                faded[c] = of(weights[0][0], c)
            else:
                faded[c] = sum(weight_N * of(bands, c) for bands, weight_N in weights)
        return faded

    def _weights(self, channel: int, start: int, samples: int) -> list[tuple[Bands | None, np.ndarray]]:
        """The stretches that are in a window, with their weights (N,), which add up to one."""
        parts = self.parts[channel]
        begun = [np.ones(samples, np.float32)]  # how far each stretch has begun
        for first, _ in parts[1:]:
            position = np.clip((np.arange(start, start + samples) - first) / CROSSFADE + 0.5, 0, 1)
            begun.append((np.sin(np.pi / 2 * position) ** 2).astype(np.float32))
        begun.append(np.zeros(samples, np.float32))
        weights = [(bands, a - b) for (_, bands), a, b in zip(parts, begun[:-1], begun[1:], strict=True)]
        return [(bands, weight_N) for bands, weight_N in weights if weight_N.any()]


@functools.lru_cache(16)  # a window needs up to four, the same as the one before it
def low_mask(samples: int, cutoff_hz: float, edges: tuple[float, float]) -> np.ndarray:
    """Gain (K,) of each bin of a window's spectrum: 1 up to edges[0] x cutoff, 0 from edges[1] x cutoff, a cosine
    between them. Read only."""
    low, high = (edge * cutoff_hz for edge in edges)
    position_K = np.clip((fft.rfftfreq(samples, 1 / SAMPLE_RATE) - low) / (high - low), 0, 1)
    mask_K = (0.5 + 0.5 * np.cos(np.pi * position_K)).astype(np.float32)
    mask_K.flags.writeable = False
    return mask_K


def as_resampled(x: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """A signal (..., N) resampled to twice the cutoff and back as the published recipe does it, by SciPy's
    `resample_poly`: its filter, whose half is the cutoff, leaves a faint mirror image over that. So far as x itself has
    as much there, of another resampler or a gentle filter, it stays as it is.

    The networks have met no other inputs and go by what is there: where a better resampler left nothing, as in the
    files that people have, their high band was further off (docs/trials.md). What `lowpass_device` does in training,
    less the images from twice the cutoff on.
    """
    given_K = fft.rfft(x.astype(np.float32))
    cutoff = round(cutoff_hz * x.shape[-1] / SAMPLE_RATE)
    image_K = _image(given_K, cutoff)
    last = image_K.shape[-1]
    made_K = np.zeros_like(given_K)
    made_K[..., :last] = _resampling_gain(cutoff)[:last] ** 2 * given_K[..., :last] + image_K
    return fft.irfft(given_K + _lacking(given_K, image_K, cutoff) * (made_K - given_K), x.shape[-1])


def _image(given_K: np.ndarray, cutoff: int) -> np.ndarray:
    """The mirror image over the cutoff's bin, up to twice that, which `resample_poly` makes of a spectrum (..., K)."""
    last = min(2 * cutoff, given_K.shape[-1] - 1)
    mirrored = slice(2 * cutoff - last, last + 1)  # bins that are each other's mirror image at the cutoff
    gain_K = _resampling_gain(cutoff)[: last + 1]
    image_K = np.zeros_like(given_K[..., : last + 1])
    image_K[..., mirrored] = np.conj((gain_K * given_K[..., : last + 1])[..., mirrored][..., ::-1])
    return gain_K * image_K


def _lacking(given_K: np.ndarray, image_K: np.ndarray, cutoff: int) -> np.ndarray:
    """From 0 where a spectrum (..., K) has as much over the cutoff's bin as its image, to 1 where it ends steeply:
    (..., 1)."""
    over = slice(*(round(edge * cutoff) for edge in IMAGE))
    has, makes = (np.square(np.abs(z_K[..., over])).sum(axis=-1, keepdims=True) for z_K in (given_K, image_K))
    ratio_db = 10 * np.log10(np.maximum(has, 1e-30) / np.maximum(makes, 1e-30))
    return np.clip((ENOUGH_DB - ratio_db) / (ENOUGH_DB - LACKING_DB), 0, 1).astype(np.float32)


IMAGE = (1.05, 1.15)  # of the cutoff: where an image shows
LACKING_DB, ENOUGH_DB = -8.0, -4.0  # of the image: what a signal has there, if it lacks one, and if it has its own
SINC_PERIODS, SINC_BETA, SINC_STEPS = 10, 5.0, 64  # of `resample_poly`: periods on each side, window; values in one


@functools.lru_cache(16)
def _resampling_gain(cutoff: int) -> np.ndarray:
    """Gain of `resample_poly`'s windowed sinc in the bins (K,) from 0 to twice the cutoff's; without SciPy's design
    of it as in `lowpass_device`, which a listener's first second would go to. Read only."""
    time = np.arange(-SINC_PERIODS * SINC_STEPS, SINC_PERIODS * SINC_STEPS + 1) / SINC_STEPS
    taps = np.sinc(time) * np.kaiser(len(time), SINC_BETA)
    ratio = np.linspace(0, 2, 1025)
    response = np.cos(np.pi * np.outer(ratio, time)) @ (taps / taps.sum())
    gain_K = np.interp(np.arange(2 * cutoff + 1) / cutoff, ratio, response).astype(np.float32)
    gain_K.flags.writeable = False
    return gain_K


def _masked(x: np.ndarray, mask_K: np.ndarray) -> np.ndarray:
    return fft.irfft(fft.rfft(x.astype(np.float32)) * mask_K, x.shape[-1])


def _density(x: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Mean square per Hz of a band around each sample (..., N)."""
    hz_K = fft.rfftfreq(x.shape[-1], 1 / SAMPLE_RATE)
    band = _masked(x, ((hz_K >= low_hz) & (hz_K <= high_hz)).astype(np.float32))
    return ndimage.uniform_filter1d(np.square(band), FLOOR_BLOCK, axis=-1) / (high_hz - low_hz)


def _steady(x: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Mean square per Hz (..., 1) that a band has in its quiet moments."""
    return np.quantile(_density(x, low_hz, high_hz)[..., ::FLOOR_BLOCK], 0.2, axis=-1, keepdims=True)


def _sound(density: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """From 0 where a band of so much per Hz (..., N) is a floor alone, smoothly to 1 where it is sound."""
    ratio_db = 10 * np.log10(np.maximum(density, 1e-30) / np.maximum(floor, 1e-30))
    sound = np.clip((ratio_db - ONLY_FLOOR_DB) / (SOUND_DB - ONLY_FLOOR_DB), 0, 1)
    sound = ndimage.maximum_filter1d(sound, 2 * FLOOR_BLOCK, axis=-1)
    return np.clip(ndimage.uniform_filter1d(sound, FLOOR_BLOCK, axis=-1), 0, 1).astype(np.float32)
