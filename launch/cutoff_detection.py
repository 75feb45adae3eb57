"""How well the cutoff of low-passed recordings is detected: python launch/cutoff_detection.py DIR

DIR holds full-band recordings (launch/data.sh makes corpus/test and corpus/validation). Each is low-passed as for
training, with and without resampling to twice the cutoff, and read by `audio.bandwidth` and by the published
detector's rule. The truth is the cutoff for Chebyshev and elliptic filters, where a filter has taken 20 dB for gentle
ones. Prints a table.
"""

import argparse

import numpy as np
import scipy.signal

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bandwidth import bandwidth, published_cutoff
from flashsr_jax.audio.files import blocks, opened
from flashsr_jax.audio.lowpass import LowpassFilter, apply_filter, simulate_low_resolution
from flashsr_jax.upscale.sources import find

CUTOFFS_HZ = (2000.0, 3000.0, 4000.0, 6000.0, 8000.0, 12_000.0, 16_000.0)
FILTERS = {  # and the error that is allowed
    ("cheby1", 8): 0.1,
    ("ellip", 8): 0.1,
    ("butter", 4): 0.2,
    ("butter", 8): 0.2,
    ("bessel", 4): 0.2,
    ("bessel", 8): 0.2,
}


def truth(lowpass: LowpassFilter, resampled: bool) -> float:
    """Where a low-passed recording ends, in Hz."""
    if lowpass.type in ("cheby1", "ellip"):
        return lowpass.cutoff_hz
    frequencies, response = scipy.signal.sosfreqz(lowpass.sos(), worN=1 << 14, fs=SAMPLE_RATE)
    down_20_db = frequencies[np.flatnonzero(np.abs(response) ** 2 > 0.1)[-1]]  # the filter runs forward and backward
    return float(min(down_20_db, lowpass.cutoff_hz) if resampled else down_20_db)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--clips", type=int, default=40, help="recordings at most, evenly chosen (default 40)")
    arguments = parser.parse_args()
    sources = find([arguments.folder], recursive=True).sources
    recordings = []
    for source in sources[:: max(1, len(sources) // arguments.clips)][: arguments.clips]:
        with opened(source.file) as audio:
            if audio.sample_rate != SAMPLE_RATE:
                parser.error(f"{source.path}: {audio.sample_rate} Hz; the recordings have to be at {SAMPLE_RATE} Hz")
            recordings.append(np.concatenate([block[0] for block in blocks(audio)]))
    ends = [bandwidth(x, SAMPLE_RATE) for x in recordings]
    print(f"{len(recordings)} recordings; full band (17.6 kHz or more): {np.mean(np.array(ends) >= 17_600):.0%}\n")
    print("| filter | resampled | within | of readings | worst | median | published rule: within | median |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (kind, order), tolerance in FILTERS.items():
        for resampled in (True, False):
            errors = []
            for hz in CUTOFFS_HZ:
                lowpass = LowpassFilter(kind, order, hz)
                end = truth(lowpass, resampled)
                for x, own_end in zip(recordings, ends, strict=True):
                    if end < 0.9 * own_end:
                        low = simulate_low_resolution(x, lowpass) if resampled else apply_filter(x, lowpass)
                        readings = (bandwidth(low, SAMPLE_RATE), published_cutoff(low))
                        errors.append([abs(reading / end - 1) for reading in readings])
            ours, published = np.array(errors).T
            print(
                f"| {kind} {order} | {'yes' if resampled else 'no'} "
                f"| {np.mean(ours <= tolerance):.1%} in {tolerance:.0%} "
                f"| {len(ours)} | {ours.max():.0%} | {np.median(ours):.1%} "
                f"| {np.mean(published <= tolerance):.0%} | {np.median(published):.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
