"""Pages that stand at the root of the repository, and links to files that are no pages, for mkdocs."""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = {
    "model_card.md": "MODEL_CARD.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand at the root."""
    for page, source in ROOT_PAGES.items():
        content = (_root(config) / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they lead in the repository, to the pages of the site; of other files of the repository, the name."""
    root, uri = _root(config), page.file.src_uri
    folder = PurePosixPath(ROOT_PAGES.get(uri, f"docs/{uri}")).parent
    pages = {source: name for name, source in ROOT_PAGES.items()} | {"README.md": "index.md"}

    def link(match: re.Match) -> str:
        image, text, target, anchor = match.group(1), match.group(2), match.group(3), match.group(4) or ""
        if "://" in target or not (root / folder / target).exists():
            return match.group(0)  # mkdocs warns of one that leads nowhere
        path = os.path.normpath(folder / target).replace(os.sep, "/")
        inside = pages.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(inside) is not None and (path in pages or path.startswith("docs/")):
            return f"{image}[{text}]({inside}{anchor})"
        return text if text == path else f"{text} (`{path}`)"

    parts = CODE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(link, part) for index, part in enumerate(parts))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
