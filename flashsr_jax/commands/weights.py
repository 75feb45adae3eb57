"""`flashsr weights`: model files, packed, imported and exported."""

import argparse

from flashsr_jax.commands.arguments import command
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    weights = commands.add_parser("weights", help="model files").add_subparsers(required=True, metavar="COMMAND")
    pack = command(weights, "pack", run_pack, "put trained networks together in one file for upscaling")
    for network in ("vae", "unet", "vocoder"):
        help_text = f"the {network}'s run folder or weights file; several: their mean"
        pack.add_argument(f"--{network}", metavar="RUN", nargs="+", help=help_text)
    pack.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    bring = command(weights, "import", run_import, "make the published PyTorch checkpoints a weights file")
    bring.add_argument("files", nargs="+", metavar="FILE", help="vae, student_ldm and sr_vocoder: .pth or .safetensors")
    bring.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    give = command(weights, "export", run_export, "write weights for PyTorch or Orbax")
    give.add_argument("source", metavar="WEIGHTS", help="a weights file, the model that comes along, or a run's folder")
    give.add_argument("--to", required=True, choices=("torch", "orbax"), help="format")
    give.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    give.add_argument("--format", choices=("pth", "safetensors"), default="pth", help="for torch (default pth)")
    give.add_argument("--last", action="store_true", help="of a run, the last parameters instead of their average")
    for parser in (pack, bring, give):
        parser.add_argument(
            "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="storage (default float32)"
        )


@needing("train", "reading networks of runs")
def run_pack(args: argparse.Namespace) -> int:
    """Several networks become one file."""
    from flashsr_jax.exchange.pack import pack

    named = {network: getattr(args, network) for network in ("vae", "unet", "vocoder")}
    pack({network: run for network, run in named.items() if run}, args.output, args.dtype)
    return 0


@needing("train", "importing weights")
def run_import(args: argparse.Namespace) -> int:
    """Checkpoints of the published code become one file."""
    from flashsr_jax.exchange.published import import_published

    import_published(args.files, args.output, args.dtype)
    return 0


@needing("train", "exporting weights")
def run_export(args: argparse.Namespace) -> int:
    """One file, or a run's network, becomes what other programs read."""
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.exchange.published import export

    enable_compilation_cache()
    files, change = export(args.source, args.to, args.output, args.dtype, args.format, not args.last)
    print(*files, sep="\n")
    if change is not None:
        print(f"{args.dtype} changes the output by {change:.4f} in LSD (1.28 s of a tone in noise)")
    return 0
