"""`flashsr live`: what comes through standard input goes out at 48 kHz while it comes."""

import argparse
import functools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from flashsr_jax.commands.arguments import add_device, add_weights, command, cutoff, integer, number
from flashsr_jax.errors import UserError

RAW = ("s16", "s24", "s32", "f32")  # those of audio.pipes, which imports NumPy
JUDGED_SECONDS = 5.0  # of sound, after which a machine that is too slow is told so
Item = TypeVar("Item")


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    live = command(commands, "live", run, "restore the high band of sound as it comes: standard input to output")
    live.add_argument(
        "--raw", choices=RAW, help="input and output are bare samples of this kind, little-endian (default: wav)"
    )
    live.add_argument("--rate", type=integer(4000, 768_000), metavar="HZ", help="of bare samples")
    live.add_argument("--channels", type=integer(1, 64), metavar="N", help="of bare samples")
    live.add_argument(
        "--latency",
        type=number(1, 1000),
        default=200.0,
        metavar="MS",
        help="between a block of 0.32 s and its output, beside the time to compute it (default 200)",
    )
    live.add_argument(
        "--cutoff",
        type=cutoff,
        default="auto",
        metavar="HZ",
        help="where the input's band ends (default: measured as it comes)",
    )
    live.add_argument("--seed", type=integer(0, 2**32 - 1), default=0, metavar="N", help="(default 0)")
    networks = live.add_argument_group("networks")
    add_weights(networks)
    add_device(networks)


def run(args: argparse.Namespace) -> int:
    """Upscale until the input ends."""
    import numpy as np

    from flashsr_jax.audio import SAMPLE_RATE
    from flashsr_jax.audio.bands import Bands
    from flashsr_jax.audio.pipes import Format, NotWavError, encoded, read_blocks, read_wav_header, wav_header
    from flashsr_jax.devices.runtime import choose_device, enable_compilation_cache, limit_heap
    from flashsr_jax.upscale.model import load_model
    from flashsr_jax.upscale.programs import dropped_at_interrupts
    from flashsr_jax.upscale.stream import Settings, upscale_stream

    if args.raw and not (args.rate and args.channels):
        raise UserError(
            f"{args.raw}: bare samples do not say their rate and channels: give --rate and --channels", "raw"
        )
    if not args.raw and (args.rate or args.channels):
        raise UserError("a wav says its rate and channels itself: leave out --rate and --channels, or give --raw")
    limit_heap()
    enable_compilation_cache()
    choose_device(args.device)
    model = load_model(args.weights)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    try:
        form = Format(args.rate, args.channels, args.raw) if args.raw else read_wav_header(source)
    except NotWavError as error:
        raise UserError(f"{error}: for bare samples give --raw, --rate and --channels") from error
    settings = Settings(
        seed=args.seed,
        dtype=args.dtype,
        latency_ms=args.latency,
        bands=Bands(args.cutoff, lowpass=True, keep_low_band=True) if args.cutoff else "auto",
    )
    restored = functools.partial(
        upscale_stream, model, sample_rate=form.sample_rate, channels=form.channels, settings=settings
    )
    with dropped_at_interrupts():
        list(restored([np.zeros((form.channels, 1), np.float32)]))  # compile before the sound comes

    if not args.raw:
        sink.write(wav_header(form._replace(sample_rate=SAMPLE_RATE)))
    clock = Clock()
    blocks = clock.waiting(read_blocks(source, form))
    for y_CxN in restored(blocks):
        sink.write(encoded(y_CxN, form.encoding))
        sink.flush()
        clock.sound += y_CxN.shape[1] / SAMPLE_RATE
        clock.judge()
    if sys.stderr.isatty():
        print(f"flashsr: {clock.sound:.1f} s of sound, {clock.said()}", file=sys.stderr)
    return 0


class Clock:
    """How long the computation takes for a second of sound, without the waiting for input."""

    def __init__(self) -> None:
        self.sound = 0.0
        self._waited = 0.0
        self._began = time.perf_counter()
        self._judged = False

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; waiting for each is not computing."""
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self._waited += time.perf_counter() - began
            if item is None:
                return
            yield item

    def judge(self) -> None:
        """Says once where the machine is slower than the sound."""
        if not self._judged and self.sound >= JUDGED_SECONDS:
            self._judged = True
            if self._share() > 1:
                print(f"flashsr: this machine is too slow: {self.said()}", file=sys.stderr)

    def said(self) -> str:
        """The share in words."""
        return f"{self._share():.2f} s of computing for each second"

    def _share(self) -> float:
        busy = time.perf_counter() - self._began - self._waited
        return busy / self.sound if self.sound else 0.0
