"""`flashsr benchmark`: how fast upscaling runs on this machine."""

import argparse

from flashsr_jax.commands.arguments import add_computation, add_weights, command, integer


def add(commands) -> None:
    """The word and its flags."""
    benchmark = command(commands, "benchmark", run, "measure how fast upscaling runs here, network by network")
    model = benchmark.add_mutually_exclusive_group()
    add_weights(model)
    model.add_argument("--preset", metavar="SIZE", help="random weights of a size: tiny, small, base (the published)")
    add_computation(benchmark)
    benchmark.add_argument(
        "--repeats", type=integer(1, 1000), default=3, metavar="N", help="timings, of which the median (default 3)"
    )
    benchmark.add_argument("--json", action="store_true", help="the figures as a line of JSON")


def run(args: argparse.Namespace) -> int:
    from flashsr_jax.cost import upscaling
    from flashsr_jax.devices.runtime import choose_device, limit_heap
    from flashsr_jax.models.presets import preset
    from flashsr_jax.upscale.model import load_model
    from flashsr_jax.upscale.stream import Settings

    limit_heap()
    choose_device(args.device)
    settings = Settings(steps=args.steps, dtype=args.dtype, batch=args.batch)
    if args.preset:
        name, config = args.preset, preset(args.preset)
        report = upscaling.benchmark(lambda: upscaling.random_model(config), settings, args.repeats)
    else:
        name = args.weights
        report = upscaling.benchmark(lambda: load_model(name), settings, args.repeats)
    print(upscaling.as_json(report, name) if args.json else upscaling.table(report, name))
    return 0
