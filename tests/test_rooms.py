"""The rooms of the package are built on each other: no import runs upward."""

import ast

from helpers import ROOT

# From the bottom to the top; `flashsr_jax.main` and what else stands beside the rooms is above them all.
ROOMS = ("errors", "files", "audio", "models", "weights", "data", "devices", "runs", "upscale", "evaluate", "train")
ROOMS += ("exchange", "cost", "commands", "api", "cli")
PACKAGE = ROOT / "flashsr_jax"


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports, wherever it does."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "flashsr_jax":
            names |= {f"flashsr_jax.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("flashsr_jax.")}


def test_no_import_runs_upward():
    found = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ROOMS:
            continue
        for name in imported(ast.parse(path.read_text())):
            other = name.split(".")[1]
            if other in ROOMS:
                assert ROOMS.index(other) <= ROOMS.index(room), f"{path.relative_to(ROOT)} imports {name}"
                found += 1
    assert found > 100
