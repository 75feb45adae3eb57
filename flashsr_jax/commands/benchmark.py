"""`flashsr benchmark`: how fast upscaling runs on this machine; `flashsr benchmark train`: how fast training does."""

import argparse
import json

from flashsr_jax.commands.arguments import add_computation, add_config, add_weights, command, integer
from flashsr_jax.extras import needing

REPEATS = integer(1, 1000)


def add(commands: argparse._SubParsersAction) -> None:
    """The words `benchmark` and `benchmark train`, and their flags."""
    benchmark = command(commands, "benchmark", run, "measure how fast upscaling runs here, network by network")
    model = benchmark.add_mutually_exclusive_group()
    add_weights(model)
    model.add_argument("--preset", metavar="SIZE", help="random weights of a size: tiny, small, base (the published)")
    add_computation(benchmark)
    benchmark.add_argument(
        "--repeats", type=REPEATS, default=3, metavar="N", help="timings, of which the median (default 3)"
    )
    benchmark.add_argument("--json", action="store_true", help="the figures as a line of JSON")
    words = benchmark.add_subparsers(metavar="train", help="measure training steps instead")
    train = command(words, "train", run_train, "measure how fast training steps run here")
    add_config(train)
    train.add_argument(
        "--repeats", type=REPEATS, default=5, metavar="N", help="training steps that are timed (default 5)"
    )
    train.add_argument("--data", metavar="DIR", help="a data set of `flashsr data build` (default: noise)")
    train.add_argument("--profile", metavar="DIR", help="trace the timed steps, for TensorBoard or Perfetto")
    train.add_argument("--checkpoint", metavar="DIR", help="time a save and a restore in this folder, too")
    train.add_argument("--json", action="store_true", help="the figures as a line of JSON")


def run(args: argparse.Namespace) -> int:
    """Measure upscaling."""
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


@needing("train", "measuring training steps")
def run_train(args: argparse.Namespace) -> int:
    """Measure training steps; of several processes, which find each other as those of a run do, the first one tells."""
    import jax

    from flashsr_jax.commands.configuration import load_configuration
    from flashsr_jax.cost.training import measure, table
    from flashsr_jax.devices import processes

    config = load_configuration(args.config, args.overrides)
    if args.data:
        config.data.mixture = {}
    config.data.dir = args.data or ""
    processes.initialize(None, None, None)
    row = measure(config, args.config, args.repeats, args.profile, args.checkpoint)
    if jax.process_index() == 0:
        print(json.dumps(row) if args.json else table(row))
    return 0
