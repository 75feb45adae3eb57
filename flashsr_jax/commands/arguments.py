"""Arguments that several words share: types of argparse, and groups of flags."""

import argparse
import re
from collections.abc import Callable
from typing import Any

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError


def command(
    commands: argparse._SubParsersAction, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A sub-command whose arguments are handled by `run(args) -> exit code`."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="show the traceback of whatever fails")
    parser.set_defaults(run=run)
    return parser


def said(error: Exception) -> str:
    """An error in the command line's words: before a value at fault stands its option, "--data x: no such folder"; a
    configuration's field is given as --config.vae_from=x."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if not isinstance(error, UserError):
        return str(error)
    text = with_options(error.args[0])
    if not error.argument:
        return text
    return f"--{error.argument}={text}" if "." in error.argument else f"{_option(error.argument)} {text}"


NAMED = (  # parameters in texts; any other word in backquotes is the user's own, of a file's name, say
    *("output", "out", "overwrite", "skip_existing", "json", "spectrogram", "recursive"),
    *("lowpass", "cutoff_hz", "csv", "runtime", "expansion"),
)


def with_options(text: str) -> str:
    """A text of a room below, in which a parameter is named as `skip_existing`, with the option: --skip-existing."""
    return re.sub(rf"`({'|'.join(NAMED)})`", lambda name: _option(name[1]), text)


def _option(parameter: str) -> str:
    return {"output": "-o", "recursive": "-r", "cutoff_hz": "--cutoff HZ"}.get(
        parameter, f"--{parameter.replace('_', '-')}"
    )


def cutoff(text: str) -> float | None:
    """An argparse type: a frequency in Hz; None for `auto`."""
    if text == "auto":
        return None
    try:
        hz = float(text)
    except ValueError:
        hz = 0.0
    if not 500 <= hz < 24_000:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a frequency from 500 to 24000 Hz")
    return hz


def decibels(text: str) -> float:
    """An argparse type: a gain from -60 to 24 dB."""
    try:
        gain = float(text)
    except ValueError:
        gain = float("nan")
    if not -60 <= gain <= 24:
        raise argparse.ArgumentTypeError(f"{text!r} is not a gain from -60 to 24 dB")
    return gain


def cutoffs(text: str) -> list[float]:
    """An argparse type: frequencies in Hz, separated by commas."""
    try:
        cutoffs = [float(part) for part in text.split(",")]
    except ValueError:
        cutoffs = []
    if not cutoffs or not all(100 <= hz < 24_000 for hz in cutoffs):
        raise argparse.ArgumentTypeError(f"{text!r} are not frequencies from 100 to 24000 Hz, separated by commas")
    return sorted(set(cutoffs))


def named_folder(text: str) -> tuple[str, str]:
    """An argparse type: NAME=DIR."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=DIR")
    return name, folder


def each(parse: Callable[[str], Any]) -> Callable[[str], list]:
    """An argparse type: several of another type, different ones, separated by commas."""
    return lambda text: list(dict.fromkeys(map(parse, text.split(","))))


def guidance_scales(text: str) -> list[float] | list[dict[str, float]]:
    """An argparse type: scales from 0 to 100, separated by commas; or one by class, CLASS=SCALE of each."""
    scale = number(0, 100)
    if "=" not in text:
        return each(scale)(text)
    by_class = {name: scale(value) for name, _, value in (part.partition("=") for part in text.split(","))}
    if by_class.keys() != set(CLASSES):
        raise argparse.ArgumentTypeError(f"{text!r}: give one for each of {', '.join(CLASSES)}: CLASS=SCALE,...")
    return [by_class]


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
        return value

    return parse


def shard(text: str) -> tuple[int, int]:
    """An argparse type: INDEX/COUNT, one of so many parts."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole: write 2/16 for the second of sixteen")
    return int(index), int(count)


def steps(text: str) -> tuple[int, int]:
    """An argparse type: FIRST:LAST, both counted."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} are no steps: write 50:60 for eleven of them")
    return int(first), int(last)


def number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def renamed(new: str) -> Callable[[str], None]:
    """An argparse type of an option that has another name now: an error that says which."""

    def refuse(text: str) -> None:
        raise argparse.ArgumentTypeError(f"is {new} now: write {new} {text}")

    return refuse


def add_config(parser: argparse.ArgumentParser, group: argparse._ActionsContainer | None = None) -> None:
    """--config, required (in `group`, where there is one), and any --config.FIELD, which come as `args.overrides`."""
    (group or parser).add_argument(
        "--config",
        required=group is None,
        metavar="STAGE:PRESET",
        help="vae:small, say; or a file, configs/vae.py:small, or a run's own, RUN/config.json; "
        "--config.FIELD=VALUE changes a field",
    )
    parser.set_defaults(overrides=[])


def add_weights(group: argparse._ActionsContainer) -> None:
    """--weights: the model."""
    group.add_argument(
        "--weights",
        default="small",
        metavar="FILE",
        help="a .safetensors file, or hf:OWNER/REPO (default: the model that comes along)",
    )


def add_computation(networks: argparse._ActionsContainer) -> None:
    """How and where the networks are computed."""
    networks.add_argument(
        "--steps", type=integer(1, 1000), default=1, metavar="N", help="evaluations of the diffusion model (default 1)"
    )
    networks.add_argument(
        "--batch", type=integer(1, 1024), metavar="N", help="windows at once (default: 1 on a CPU, else 4)"
    )
    add_device(networks)


def add_device(networks: argparse._ActionsContainer) -> None:
    """Where the networks are computed, and how exactly."""
    networks.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="(default: the best there is)")
    networks.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (default float32)"
    )
