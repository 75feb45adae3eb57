"""`flashsr weights`: model files, packed, imported and exported."""

import argparse

from flashsr_jax.commands.arguments import command, number
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing

STORED = ("float32", "bfloat16", "float16")
EXPORTED = {  # what --dtype can be of each format
    "torch": STORED,
    "orbax": STORED,
    "onnx": ("float32", "float16", "int8"),
    "stablehlo": ("float32", "bfloat16"),
}


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    weights = commands.add_parser("weights", help="model files").add_subparsers(required=True, metavar="COMMAND")
    pack = command(weights, "pack", run_pack, "put trained networks together in one file for upscaling")
    for network in ("vae", "unet", "vocoder"):
        help_text = f"the {network}'s run folder or weights file; several: their mean"
        pack.add_argument(f"--{network}", metavar="RUN", nargs="+", help=help_text)
    pack.add_argument(
        "--shares",
        type=number(-10, 10),
        nargs="+",
        metavar="SHARE",
        help="of each of several networks, instead of equal ones; under 0, what it has is taken away (together 1)",
    )
    pack.add_argument(
        "--expansion",
        type=number(0, 1),
        metavar="SHARE",
        help="of loud moments over a band's mean, by which they become louder, up to 4 dB; for a regression, whose are "
        "too soft (default: as the U-Net's file says, else 0)",
    )
    pack.add_argument(
        "--dispersed",
        action=argparse.BooleanOptionalAction,
        help="random phases of what the vocoder adds, which buzzes without where the mel is smooth; for one with an "
        "inverse STFT (default: as the vocoder's file says, else no)",
    )
    pack.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    bring = command(weights, "import", run_import, "make the published PyTorch checkpoints a weights file")
    bring.add_argument("files", nargs="+", metavar="FILE", help="vae, student_ldm and sr_vocoder: .pth or .safetensors")
    bring.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    give = command(weights, "export", run_export, "write a model for PyTorch, Orbax, ONNX or StableHLO")
    give.add_argument("source", metavar="WEIGHTS", help="a weights file, the model that comes along, or a run's folder")
    give.add_argument("--to", required=True, choices=tuple(EXPORTED), help="format")
    give.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    give.add_argument("--format", choices=("pth", "safetensors"), default="pth", help="for torch (default pth)")
    give.add_argument("--last", action="store_true", help="of a run, the last parameters instead of their average")
    help_text = "for onnx and stablehlo: the encoder takes the waveform, and makes the log-mel itself"
    give.add_argument("--with-stft", action="store_true", help=help_text)
    for parser in (pack, bring):
        parser.add_argument("--dtype", choices=STORED, default="float32", help="storage (default float32)")
    help_text = (
        "storage; for onnx float16 (products in it, too) or int8 (of the weights); for stablehlo the computation's"
    )
    types = tuple(dict.fromkeys(dtype for of_format in EXPORTED.values() for dtype in of_format))
    give.add_argument("--dtype", choices=types, default="float32", help=f"{help_text} (default float32)")


@needing("train", "reading networks of runs")
def run_pack(args: argparse.Namespace) -> int:
    """Several networks become one file."""
    from flashsr_jax.exchange.pack import pack

    named = {network: getattr(args, network) for network in ("vae", "unet", "vocoder")}
    runs = {network: run for network, run in named.items() if run}
    pack(runs, args.output, args.dtype, args.expansion, args.shares, args.dispersed)
    return 0


@needing("train", "importing weights")
def run_import(args: argparse.Namespace) -> int:
    """Checkpoints of the published code become one file."""
    from flashsr_jax.exchange.published import import_published

    import_published(args.files, args.output, args.dtype)
    return 0


def run_export(args: argparse.Namespace) -> int:
    """One file, or a run's network, becomes what other programs read."""
    if args.dtype not in EXPORTED[args.to]:
        raise UserError(f"{args.dtype}: --to {args.to} takes {', '.join(EXPORTED[args.to])}", "dtype")
    if args.to == "onnx":
        return _export_onnx(args)
    if args.to == "stablehlo":
        return _export_stablehlo(args)
    if args.with_stft:
        raise UserError(f"is for --to onnx and stablehlo; {args.to} has weights alone: leave it out", "with_stft")
    return _export_weights(args)


@needing("train", "exporting weights")
def _export_weights(args: argparse.Namespace) -> int:
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.exchange.published import export

    enable_compilation_cache()
    files, change = export(args.source, args.to, args.output, args.dtype, args.format, not args.last)
    print(*files, sep="\n")
    if change is not None:
        print(f"{args.dtype} changes the output by {change:.4f} in LSD (1.28 s of a tone in noise)")
    return 0


@needing("onnx", "exporting to ONNX")
def _export_onnx(args: argparse.Namespace) -> int:
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.exchange.graphs.onnx_files import export_onnx

    enable_compilation_cache()
    files, difference = export_onnx(args.source, args.output, args.dtype, not args.last, args.with_stft)
    print(*files, sep="\n")
    print(
        f"{args.dtype} in ONNX Runtime differs from float32 in JAX by {difference.lsd:.4f} in LSD, no sample by more "
        f"than {difference.largest:.1e} of full scale (1.28 s of a tone in noise)"
    )
    return 0


def _export_stablehlo(args: argparse.Namespace) -> int:
    from flashsr_jax.exchange.graphs.stablehlo import export_stablehlo

    files = export_stablehlo(args.source, args.output, args.dtype, not args.last, args.with_stft)
    print(*files, sep="\n")
    return 0
