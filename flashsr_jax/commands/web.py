"""`flashsr web`: upscaling on a page in the browser, whose files this machine serves to itself."""

import argparse
import contextlib
import webbrowser

from flashsr_jax.commands.arguments import command, integer
from flashsr_jax.errors import UserError

PORT = 8048


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    web = command(commands, "web", run, "upscale in the browser: no recording leaves this machine")
    help_text = f"to listen at, on this machine alone; 0: any that is free (default {PORT})"
    web.add_argument("--port", type=integer(0, 65535), metavar="N", help=help_text)
    help_text = (
        "a .safetensors file, hf:OWNER/REPO, or a folder that `weights export --to onnx` wrote "
        "(default: the model that comes along)"
    )
    web.add_argument("--weights", default="small", metavar="W", help=help_text)
    help_text = "onnxruntime-web's folder dist, where there is no network to fetch it from once"
    web.add_argument("--runtime", metavar="DIR", help=help_text)
    web.add_argument("--no-open", action="store_true", help="open no browser")
    help_text = "write the page's files there, for any web server, and serve nothing"
    web.add_argument("-o", "--output", metavar="DIR", help=help_text)


def run(args: argparse.Namespace) -> int:
    """Serve the page until interrupted, or write it."""
    from flashsr_jax.web.server import Server
    from flashsr_jax.web.site import site, write

    if args.output and (args.port is not None or args.no_open):
        raise UserError("is for a page that others serve: leave out --port and --no-open", "output")
    files = site(args.weights, args.runtime)
    if args.output:
        write(files, args.output)
        print(args.output)
        return 0
    with Server(files, PORT if args.port is None else args.port) as server:
        print(f"{server.url} (Ctrl-C ends it)", flush=True)
        if not args.no_open:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
