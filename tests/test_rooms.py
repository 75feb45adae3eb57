"""The rooms of the package stand on each other: no import runs upward, wherever in a file it is written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import flashsr_jax

from helpers import ROOT

PACKAGE = Path(flashsr_jax.__file__).parent
# From bottom to top; CONTRIBUTING.md says in a sentence what lives in each. `exchange` packs what `train` has made.
ROOMS = (
    "errors",
    "extras",
    "progress",
    "files",
    "kept",
    "locks",
    "audio",
    "models",
    "weights",
    "data",
    "devices",
    "runs",
    "upscale",
    "evaluate",
    "train",
    "exchange",
    "cost",
    "web",
    "commands",
    "api",
    "interop",
    "cli",
)
# Doors: started by `python -m`, imported by nobody below.
DOORS = ("main", "__main__")


def room_of(path: Path) -> str:
    """The first part of a module's name under the package: flashsr_jax/audio/fft.py is in `audio`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of each import of this package in a file, those inside functions and for types alone as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "flashsr_jax" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "flashsr_jax" and rest and not rest.startswith("__"):
                yield node.lineno, rest.split(".")[0]


def upward() -> list[str]:
    """Each import of a room that stands above the importing one."""
    order = {room: height for height, room in enumerate((*ROOMS, *DOORS))}
    lines = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "__init__.py":  # the package's front, which hands out `FlashSR` from `api`
            continue
        room = room_of(path)
        assert room in order, f"{path}: give the room its place in ROOMS"
        for line, imported in imports(path):
            assert imported in order or imported == "FlashSR", f"{path}:{line}: {imported} has no place in ROOMS"
            if order.get(imported, order["api"]) > order[room]:
                lines.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {room} imports {imported}")
    return lines


def test_no_import_runs_upward():
    assert not (found := upward()), "\n".join(found)


def test_rooms_below_the_doors_know_no_flags():
    """Their errors name parameters, `overwrite` say, which `commands` turns into options."""
    flags = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if room_of(path) in ("commands", "cli", *DOORS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith(("Error", "Failed", "Unusable")):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                named = [text for text in texts if re.search(r"(?<!flashsr)(^|[ (])--?[a-z]", text)]
                flags += [
                    f"{path}:{node.lineno}: {text}" for text in named if "flashsr " not in text and "sox " not in text
                ]
    assert not flags, "\n".join(flags)


def test_each_room_says_what_lives_there():
    """The first line of a room's docstring is a sentence."""
    for room in ROOMS:
        path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path}: no docstring"


def test_contributing_has_a_sentence_for_each_room_in_this_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)(?:/|\.py)` \| \S+ \S+", text, re.MULTILINE)) == ROOMS
