"""Puts the files of the project's top folder into the documentation site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# README is the site's first page.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, with links as they are in the site."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=relinked(text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let a page of docs/ link to a page of the top folder; other files have no page to link to."""
    folder = (DOCS / page.file.src_uri).parent

    def replaced(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            return link[0]
        source = path.relative_to(ROOT).as_posix()
        ups = "../" * page.file.src_uri.count("/")
        return f"[{text}]({ups}{PAGES[source]}{anchor})" if source in PAGES else text

    if page.file.src_uri in PAGES.values():
        return markdown
    return re.sub(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)", replaced, markdown)


def relinked(text: str) -> str:
    """The text of a top-level file with links into docs/ relative to the site's root."""
    text = re.sub(r"\]\(docs/results/\)", "](results/default.md)", text)
    return text.replace("](docs/", "](")
