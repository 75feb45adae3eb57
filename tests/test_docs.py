"""README, guides and site: they build without warnings and without a network, and what they name exists."""

import re
import subprocess
import sys

import pytest

from helpers import ROOT

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"```.*?```", re.DOTALL)
FILLED = ("MODEL_CARD.md", "docs/ablation.md")


@pytest.mark.training
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert {"index.html", "listener.html", "training.html", "evaluation.html", "performance.html"} <= pages.keys()
    assert {"model_card.html", "contributing.html", "changelog.html", "api.html"} <= pages.keys()
    for name, page in pages.items():
        tags = re.findall(r"<(?:script|img|link)\b[^>]*>", page)
        fetched = [tag for tag in tags if re.search(r"(?:src|href)=\"?https?:", tag) and "canonical" not in tag]
        assert not fetched, f"{name}: {fetched}"
    assert "flashsr_jax.api.FlashSR" in pages["api.html"] and "48 kHz" in pages["api.html"]
    assert "demo/speech-alsa-english.png" in pages["index.html"]
    assert "small/effects-best.png" in pages["model_card.html"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_there(page):
    text = CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    generated = {"docs/model_card.md", "docs/contributing.md", "docs/changelog.md"}  # by docs/hooks.py, of the root's
    for target, _ in LINK.findall(text):
        path = (ROOT / page).parent / target
        named = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        assert "://" in target or path.exists() or named in generated, f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_scripts_that_pages_name_are_there(page):
    """No page names a path of an older layout: programs after `python`, scripts after `bash`, files in quotation."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for module in re.findall(r"python -m (flashsr_jax[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page}: python -m {module}"
    for script in re.findall(r"(?:bash|python) ((?:launch|tests)/[\w/.]+\.(?:sh|py))", text):
        assert (ROOT / script).exists(), f"{page}: {script}"
    for file in re.findall(r"`((?:flashsr_jax|launch|tests|configs|docs)/[\w/.]+\.(?:sh|py|csv|md))`", text):
        assert (ROOT / file).exists() or "NAME" in file or "STAGE" in file, f"{page}: {file}"


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 160 and max(map(len, lines)) <= 160


@pytest.mark.parametrize("page", [page for page in PAGES if page not in FILLED])
def test_lines_are_of_at_most_160_characters(page):
    """But for those of tables, and of pages that programs fill in."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 160 and not line.startswith("|")]


def test_the_hooks_before_a_commit_are_valid():
    check = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
