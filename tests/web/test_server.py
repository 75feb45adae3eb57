"""`flashsr web`: what the page consists of, and what the server answers."""

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import sys
import tarfile
import urllib.error
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flashsr_jax.cli import main
from flashsr_jax.exchange.graphs.contract import FORMAT
from flashsr_jax.web import runtime
from flashsr_jax.web.site import PAGE

from helpers.served import served

GRAPHS = ("encoder", "decoder", "vocoder")


def graphs(folder: Path, **about: object) -> Path:
    """A folder as `weights export --to onnx` writes it, but for what the graphs are."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {name: {"file": f"{name}.onnx"} for name in GRAPHS}
    (folder / "model.json").write_text(json.dumps({"format": FORMAT, "opset": 20, "graphs": described} | about))
    for name in GRAPHS:
        (folder / f"{name}.onnx").write_bytes(name.encode())
    return folder


def runtime_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in runtime.FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASHSR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a running `flashsr web`, as (host, port)."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "secret.txt").write_text("secret")
    options = ["--weights", graphs(folder / "graphs"), "--runtime", runtime_folder(folder / "runtime")]
    command = [sys.executable, "-m", "flashsr_jax", "web", "--port", "0", "--no-open", *map(str, options)]
    with served(command, cwd=folder) as (process, url):
        yield urlsplit(url).hostname, urlsplit(url).port
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0  # that is how it is ended


def ask(address: tuple[str, int], target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.putrequest(method, target)  # the target as it is: clients would tidy it up
    connection.endheaders()
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


TYPES = {
    "": "text/html; charset=utf-8",
    "index.html": "text/html; charset=utf-8",
    "?theme=dark": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "worker.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "model/model.json": "application/json",
    "model/vocoder.onnx": "application/octet-stream",
    "runtime/ort.wasm.min.mjs": "text/javascript; charset=utf-8",
    "runtime/ort-wasm-simd-threaded.wasm": "application/wasm",
}


@pytest.mark.parametrize("target", TYPES)
def test_files_come_with_their_types_and_what_isolation_needs(address, target):
    status, headers, body = ask(address, f"/{target}")
    assert status == 200 and headers["content-type"] == TYPES[target]
    assert int(headers["content-length"]) == len(body) > 0
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    own = PAGE / (target if "." in target else "index.html")
    if own.is_file():
        assert body == own.read_bytes()
    head = ask(address, f"/{target}", "HEAD")
    assert head[0] == 200 and head[2] == b"" and head[1]["content-length"] == headers["content-length"]


def test_the_policy_lets_nothing_out(address):
    policies = [ask(address, target)[1]["content-security-policy"] for target in ("/", "/worker.js", "/nothing")]
    (policy,) = set(policies)
    rules = {name: values for name, *values in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == rules["form-action"] == ["'none'"]
    assert rules["connect-src"] == rules["worker-src"] == rules["style-src"] == ["'self'"]
    assert {source for values in rules.values() for source in values} == {"'self'", "'none'", "'wasm-unsafe-eval'"}
    # The page carries it itself, for servers that send no headers; browsers take frame-ancestors from headers alone.
    (carried,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', (PAGE / "index.html").read_text())
    assert f"{carried}; frame-ancestors 'none'" == policy


@pytest.mark.parametrize(
    "target",
    [
        "/secret.txt",
        "/../secret.txt",
        "/model/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/model/..%2f..%2fsecret.txt",
        "/runtime/..\\..\\secret.txt",
        "//etc/passwd",
        "/etc/passwd",
        "/index.html/",
        "/index.html%00.js",
        "/model",
        "/model/",
        "secret.txt",
        "file:///etc/passwd",
    ],
)
def test_nothing_else_is_served(address, target):
    for method in ("GET", "HEAD"):
        status, headers, body = ask(address, target, method)
        assert status == 404 and b"secret" not in body.replace(target.encode(), b"") and b"root:" not in body
        assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW"])
def test_only_get_and_head_are_answered(address, method):
    assert ask(address, "/", method)[0] == 501


def test_only_this_machine_is_listened_to(address):
    host, port = address
    assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):  # another address of this machine, as a network's would be
        ask(("127.0.0.2", port), "/")


def test_a_taken_port_is_named(address, capsys):
    options = ["--weights", str(graphs(Path("graphs"))), "--runtime", str(runtime_folder(Path("runtime")))]
    assert main(["web", "--no-open", "--port", str(address[1]), *options]) == 1
    assert f"--port {address[1]}: cannot be listened at (Address already in use)" in capsys.readouterr().err


def written(*options: str) -> Path:
    assert main(["web", "-o", "out", "--weights", str(graphs(Path("graphs"))), *options]) == 0
    return Path("out")


def test_the_page_is_written_for_other_servers():
    """Whatever a file of it names is there, too."""
    out = written("--runtime", str(runtime_folder(Path("runtime"))))
    assert {path.name for path in (out / "model").iterdir()} == {"model.json", *(f"{name}.onnx" for name in GRAPHS)}
    assert {path.name for path in (out / "runtime").iterdir()} == set(runtime.FILES)
    page = (out / "index.html").read_text()
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(named) == 3 and not re.search(r"\bstyle=|<style|\bon\w+=|https?:(?!//www.w3.org/2000/svg)", page)
    for script in out.glob("*.js"):
        text = script.read_text()
        named += re.findall(r'^import .* from "\./([^"]+)"', text, re.MULTILINE)
        named += re.findall(r'new Worker\("([^"]+)"', text)
        named += [f"runtime/{name}" for name in re.findall(r'"(ort\.[^"]+)"', text)]
        assert "http" not in text, script  # no address of elsewhere
    assert len(named) > 15 and all((out / name).is_file() for name in named)


class Archive(io.BytesIO):
    """A response with an archive as the registry sends it, with more in it than is used."""

    def __init__(self):
        super().__init__()
        with tarfile.open(fileobj=self, mode="w:gz") as tar:
            for name in (*runtime.FILES, "ort.js", "../../escaped"):
                entry = tarfile.TarInfo(f"package/dist/{name}")
                entry.size = len(name)
                tar.addfile(entry, io.BytesIO(name.encode()))
        self.seek(0)


def test_the_runtime_is_fetched_once_and_its_digest_checked(monkeypatch, capsys):
    fetched = []

    def urlopen(url: str, timeout: float) -> Archive:
        fetched.append(url)
        return Archive()

    monkeypatch.setattr(runtime.urllib.request, "urlopen", urlopen)
    assert main(["web", "-o", "out", "--weights", str(graphs(Path("graphs")))]) == 1
    assert "is another file than expected: its SHA-512 is not that of version" in capsys.readouterr().err
    assert not Path("out").exists() and not list(Path("cache").rglob("*.wasm"))

    digest = hashlib.sha512(Archive().getvalue()).digest()
    monkeypatch.setattr(runtime, "SHA512", base64.b64encode(digest).decode())
    for _ in range(2):
        out = written()
    assert fetched == [runtime.URL] * 2 and "fetching onnxruntime-web" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in (out / "runtime").iterdir()} == {n: n for n in runtime.FILES}
    assert not list(Path().rglob("escaped")) and not list(Path().rglob("ort.js"))


def test_without_a_network_the_way_out_is_said(monkeypatch, capsys):
    def urlopen(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(runtime.urllib.request, "urlopen", urlopen)
    assert main(["web", "-o", "out", "--weights", str(graphs(Path("graphs")))]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("flashsr: onnxruntime-web cannot be fetched (no route to host): unpack https://")
    assert line.endswith("give its folder package/dist as --runtime")


def test_weights_are_exported_once_and_again_when_they_change(monkeypatch):
    onnx_files = pytest.importorskip("flashsr_jax.exchange.graphs.onnx_files", exc_type=ImportError)
    exported = []

    def export_onnx(source: str, out: Path) -> None:
        exported.append(Path(source).read_text())
        graphs(out)

    monkeypatch.setattr(onnx_files, "export_onnx", export_onnx)
    files = runtime_folder(Path("runtime"))
    for weights in ("one", "one", "another"):
        Path("mine.safetensors").write_text(weights)
        assert main(["web", "-o", "out", "--weights", "mine.safetensors", "--runtime", str(files)]) == 0
        assert (Path("out") / "model" / "encoder.onnx").read_text() == "encoder"
    assert exported == ["one", "another"]


MISTAKES = {
    ("--weights", "nowhere"): "--weights nowhere: no weights file and no folder of graphs",
    ("--weights", "stablehlo"): "--weights stablehlo: model.json does not describe graphs of ONNX (flashsr_jax/graphs/",
    ("--weights", "older"): "--weights older: model.json does not describe graphs of ONNX (flashsr_jax/graphs/",
    ("--weights", "damaged"): "--weights damaged: model.json does not describe graphs of ONNX (flashsr_jax/graphs/",
    ("--weights", "partial"): "--weights partial: model.json names vocoder.onnx, which is not there",
    ("--runtime", "graphs"): "--runtime graphs: has no ort.wasm.min.mjs: give the folder dist of onnxruntime-web",
    ("--port", "80"): "-o is for a page that others serve: leave out --port and --no-open",
    ("--no-open",): "-o is for a page that others serve: leave out --port and --no-open",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(arguments, capsys):
    graphs(Path("graphs"))
    graphs(Path("partial"))
    Path("partial/vocoder.onnx").unlink()
    for name, text in {"stablehlo": f'{{"format": "{FORMAT}", "graphs": {{}}}}', "damaged": '{"format":'}.items():
        Path(name).mkdir()
        Path(name, "model.json").write_text(text)
    graphs(Path("older"), format="flashsr_jax/graphs/0")
    options = [] if "--weights" in arguments else ["--weights", "graphs"]
    assert main(["web", "-o", "out", *options, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {MISTAKES[arguments]}"), line
    assert not Path("out").exists()
