"""`flashsr evaluate`: models, baselines and other systems on the same originals."""

import argparse
import dataclasses

from flashsr_jax.commands.arguments import (
    command,
    cutoffs,
    each,
    guidance_scales,
    integer,
    named_folder,
    number,
    renamed,
)
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    evaluate = command(
        commands, "evaluate", run, "compare models, baselines and other systems' files, and write a report"
    )
    evaluate.add_argument(
        "--data", required=True, metavar="DIR", help="full-band originals, or a data set of `flashsr data build`"
    )
    evaluate.add_argument("--weights", metavar="FILE", help="the model, a .safetensors file")
    evaluate.add_argument("-o", "--output", required=True, metavar="DIR", help="the report's folder")
    evaluate.add_argument(
        "--cutoffs",
        dest="cutoffs_hz",
        type=cutoffs,
        default="2000,4000,6000,8000,12000,16000",
        metavar="HZ,...",
        help="where the inputs end (default %(default)s)",
    )
    evaluate.add_argument(
        "--inputs",
        choices=("low-pass", "file", "full-file"),
        default="low-pass",
        help="low-pass: a filter at the cutoff, the protocol of the field (default); file: a file of twice the cutoff "
        "from a good resampler, upscaled as `flashsr upscale` does it; full-file: one whose band goes up to half its "
        "rate, as that of a voice made at this rate",
    )
    evaluate.add_argument(
        "--clips", type=integer(1, 10**6), metavar="N", help="clips a class (default: all files; 40 of a data set)"
    )
    evaluate.add_argument(
        "--seconds",
        type=number(1, 3600),
        default=5.12,
        metavar="S",
        help="the most of a recording that is used (default 5.12)",
    )
    evaluate.add_argument("--split", default="test", help="of a data set (default test)")
    evaluate.add_argument(
        "--seeds", type=integer(1, 100), default=1, metavar="N", help="runs of whatever draws noise (default 1)"
    )
    evaluate.add_argument(
        "--latency",
        dest="latency_ms",
        type=number(1, 1000),
        metavar="MS",
        help="measure the model as `flashsr live` with this delay, too",
    )
    evaluate.add_argument("--teacher", metavar="RUN", help="a teacher's run folder or weights file to compare")
    evaluate.add_argument(
        "--teacher-steps",
        type=each(integer(1, 1000)),
        default="50",
        metavar="N,...",
        help="the teacher's steps (default 50); of several, each is compared",
    )
    evaluate.add_argument(
        "--teacher-guidance",
        type=guidance_scales,
        default="1",
        metavar="S,...",
        help="its guidance scale (default 1: none); of several, each is compared; speech=S,music=S,effects=S is one",
    )
    for old in ("--steps", "--guidance"):
        evaluate.add_argument(old, type=renamed(f"--teacher-{old[2:]}"), help=argparse.SUPPRESS)
    evaluate.add_argument("--regression", metavar="RUN", help="a regression U-Net's run or weights file to compare")
    evaluate.add_argument(
        "--model",
        dest="models",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another model to compare, a .safetensors file",
    )
    evaluate.add_argument(
        "--own-low-band",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another model, with the networks' own band under the cutoff, where all others have the input's",
    )
    evaluate.add_argument("--keep-low-band", type=renamed("--model"), help=argparse.SUPPRESS)
    evaluate.add_argument(
        "--outputs",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="files of another system, named as the originals: DIR/CLIP.wav, or DIR/CUTOFF/CLIP.wav",
    )
    evaluate.add_argument(
        "--noise-profiles", metavar="FILE", help="profiles for the noise baseline (default: built in)"
    )
    evaluate.add_argument(
        "--no-perceptual",
        dest="perceptual",
        action="store_false",
        help="leave out Zimtohrli and ViSQOL, which are slow",
    )
    evaluate.add_argument(
        "--samples",
        dest="samples_per_class",
        type=integer(0, 100),
        default=2,
        metavar="N",
        help="clips a class to listen to (default 2)",
    )
    evaluate.add_argument("--save-audio", action="store_true", help="keep every input and output as a file")
    evaluate.add_argument(
        "--workers", type=integer(1, 1024), metavar="N", help="measuring processes (default: all cores)"
    )


@needing("eval", "evaluation")
def run(args: argparse.Namespace) -> int:
    """Measure, and print the tables and where the report is."""
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.evaluate.evaluation import Options, evaluate

    if (args.teacher or args.regression or args.latency_ms) and not args.weights:
        raise UserError("--teacher, --regression and --latency need --weights: the networks around them, or the model")
    enable_compilation_cache()
    options = Options(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Options)})
    print(evaluate(args.data, args.output, options))
    return 0
