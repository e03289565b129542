"""What MkDocs cannot do by itself: pages from the root's files, and links that suit both places."""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).absolute().parents[1]
_PAGE_OF = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}
_LINK = re.compile(r"(\]\()(?!\w+:)([^)#\s]+)")


def on_files(files, *, config):
    """Adds the root's texts, which stand outside docs/, to the pages."""
    for name, page in _PAGE_OF.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))


def on_page_markdown(markdown, *, page, config, files):
    """Turns links that are right in the repository into links that are right in the site."""
    in_repository = {page: name for name, page in _PAGE_OF.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(in_repository.get(here, f"docs/{here}"))

    def in_site(match):
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        found = _PAGE_OF.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(found, posixpath.dirname(here) or ".")

    return _LINK.sub(in_site, markdown)
