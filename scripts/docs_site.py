"""
Hooks of MkDocs: add the pages that lie beside docs/, and change the links between them and docs/.

``README.md`` becomes the page ``readme.md`` of the site, and so on. A link to another file outside docs/,
such as the source of a test, is replaced by its text: the site has no copy of that file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "readme.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Page beside docs/, and its name on the site."""

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")

ROLE = re.compile(
    r":(?:attr|class|exc|func|meth|mod):<code>[~.]?(?:tavus_provider(?:\.\w+)*\.(?=[A-Z]))?(\w)"
)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages beside docs/."""
    from mkdocs.structure.files import File

    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Change the links of a page to what they are called on the site."""
    beside_docs = page.file.src_uri in PAGES.values()
    if beside_docs:
        markdown = re.sub(r"(\]\(|src=\"|srcset=\")docs/", r"\1", markdown)
    return LINK.sub(lambda match: _link(match, beside_docs=beside_docs), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles of reStructuredText, such as ``:meth:``, that docstrings have before names."""
    return ROLE.sub(r"<code>\1", html)


def _link(match: re.Match[str], *, beside_docs: bool) -> str:
    target = match["target"]
    name = target.removeprefix("../")
    if name in PAGES and (target != name or beside_docs):
        return f"[{match['text']}]({PAGES[name]}{match['anchor'] or ''})"
    if target.startswith("../"):
        return str(match["text"])
    return match[0]
