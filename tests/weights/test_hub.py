"""--weights hf:OWNER/REPO against a server on this machine that answers as the hub does."""

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.weights.store import save_weights

from helpers import ROOT
from helpers.micro_model import MICRO, micro_params

COMMAND = str(Path(sys.executable).with_name("flashsr"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path):
    """Environment of a client, and the requests so far; the server has me/tiny with a model.safetensors, of the commit
    that a file says."""
    save_weights(tmp_path / "model.safetensors", MICRO, micro_params())
    data, requests = (tmp_path / "model.safetensors").read_bytes(), []
    commit = tmp_path / "commit"
    commit.write_text(COMMIT)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, with_data):
            requests.append(f"{self.command} {self.path}")
            there = self.path == "/me/tiny/resolve/main/model.safetensors"
            body = data if there else b"Entry not found"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", commit.read_text())
            self.send_header("ETag", '"abcdef"')
            if not there:
                self.send_header("X-Error-Code", "EntryNotFound" if "/me/tiny/" in self.path else "RepoNotFound")
            self.end_headers()
            if with_data:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    yield environment, requests
    server.shutdown()


def upscale(tmp_path, environment, weights, out="out.wav"):
    sf.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 8000)
    command = [COMMAND, "upscale", "a.wav", "-o", out, "--weights", weights]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


@pytest.mark.training
def test_weights_are_fetched_once_and_kept(hub, tmp_path):
    environment, requests = hub
    code, err = upscale(tmp_path, environment, "hf:me/tiny")
    assert code == 0, err
    file = "GET /me/tiny/resolve/main/model.safetensors"
    assert requests.count(file) == 1
    code, err = upscale(tmp_path, environment, "hf:me/tiny/model.safetensors", "again.wav")
    assert code == 0 and requests.count(file) == 1
    code, err = upscale(tmp_path, environment | {"HF_HUB_OFFLINE": "1"}, "hf:me/tiny", "offline.wav")
    assert code == 0, err
    np.testing.assert_array_equal(sf.read(tmp_path / "out.wav")[0], sf.read(tmp_path / "offline.wav")[0])


UPSCALE_BY_EACH = """
import sys
from flashsr_jax.cli import main
print(*(main(["upscale", "a.wav", "-o", "out.wav", "--weights", weights]) for weights in sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("offline", "messages"),
    [
        (
            "0",
            {
                "hf:me/tiny/other.safetensors": "hf:me/tiny/other.safetensors cannot be fetched: 404",
                "hf:me/nothing": "hf:me/nothing cannot be fetched: 404",
                "hf:tiny": "hf:tiny: write hf:OWNER/REPO",
            },
        ),
        ("1", {"hf:me/tiny": "hf:me/tiny is not in the hub's cache, and the hub cannot be reached"}),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, tmp_path, offline, messages):
    """In a process for each environment, which the hub's client reads as it is imported."""
    sf.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 8000)
    command = [sys.executable, "-c", UPSCALE_BY_EACH, *messages]
    environment = hub[0] | {"HF_HUB_OFFLINE": offline}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * len(messages)
    lines = [line for line in done.stderr.splitlines() if line.startswith("flashsr: ")]
    for line, message in zip(lines, messages.values(), strict=True):
        assert line.startswith(f"flashsr: {message}"), done.stderr
    assert not (tmp_path / "out.wav").exists()


PACK = """
import contextlib, sys
from pathlib import Path
from flashsr_jax.cli import main
from helpers.read_only import read_only
with contextlib.ExitStack() as shut:
    for folder in [Path("cache"), *(path for path in Path("cache").rglob("*") if path.is_dir())]:
        shut.enter_context(read_only(folder))
    sys.exit(main(["weights", "pack", "--unet", "hf:me/tiny", "-o", sys.argv[1]]))
"""


@pytest.mark.training
def test_a_cache_that_cannot_be_written_gives_what_it_has_and_else_a_line_says_the_way_out(hub, tmp_path):
    environment = hub[0] | {"PYTHONPATH": str(ROOT / "tests")}

    def pack(out, **variables):
        done = subprocess.run(
            [sys.executable, "-c", PACK, out],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        assert (tmp_path / out).exists() == (done.returncode == 0) and "Traceback" not in done.stderr
        return done.returncode, done.stderr

    def refused(out):
        code, err = pack(out)
        line = err.strip().splitlines()[-1]
        assert code == 1 and line.startswith("flashsr: hf:me/tiny cannot be kept in the hub's cache (")
        assert str(tmp_path / "cache") in line and "Permission denied): set HF_HOME to a folder" in line

    (tmp_path / "cache").mkdir()
    refused("a.safetensors")
    fetched = [sys.executable, "-c", "import sys, huggingface_hub as hub; hub.hf_hub_download(*sys.argv[1:])"]
    subprocess.run([*fetched, "me/tiny", "model.safetensors"], env=environment, check=True, capture_output=True)
    assert pack("b.safetensors")[0] == 0
    (tmp_path / "commit").write_text(COMMIT[::-1])  # the hub has another version now
    refused("c.safetensors")
    assert pack("d.safetensors", HF_HUB_OFFLINE="1")[0] == 0
