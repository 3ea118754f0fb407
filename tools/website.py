"""Hooks of MkDocs (mkdocs.yml): what the website holds beside the pages of docs, each made from its one source.

The pages at the root of the repository, the commands by their own `--help`, and the files that pages link to.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

__all__ = ["on_files", "on_page_markdown"]

# page at the root of the repository: page of the website
_ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_LANGUAGES = {".py": "python", ".toml": "toml"}
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
# code in a table, where hosts want pipes escaped and Python-Markdown does not
_ROW = re.compile(r"(?<=`)[^`\n|]*\\\|[^`\n]*(?=`)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds what is not in docs. Raises PluginError where the commands cannot be asked or a linked file is not there."""
    root = Path(config.config_file_path).parent
    for name, uri in _ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(root / name).read_text(encoding="utf-8")))
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for uri, text in pages.items():
        for _, link in _LINK.findall(text):
            path = _in_repository(uri, link)
            shown = f"{path}.md"
            if path in _ROOT_PAGES or path.startswith("docs/") or files.get_file_from_path(shown) is not None:
                continue
            try:
                content = (root / path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                raise PluginError(f"{uri}: {link}: {getattr(e, 'strerror', None) or e}") from e
            fence = f"# {path}\n\n```{_LANGUAGES.get(Path(path).suffix, 'text')}\n{content}```\n"
            files.append(File.generated(config, shown, content=fence, inclusion=InclusionLevel.NOT_IN_NAV))
    asked = [
        sys.executable,
        "-m",
        "typer",
        "unquant.cli.app",
        "utils",
        "docs",
        "--name",
        "unquant",
        "--title",
        "Commands",
    ]
    said = subprocess.run(asked, capture_output=True, encoding="utf-8", check=False)
    if said.returncode:
        raise PluginError(f"{' '.join(asked)}: {said.stderr}")
    files.append(File.generated(config, "commands.md", content=said.stdout))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """What is written for the usual hosts of repositories becomes what Python-Markdown reads: links, and code in tables."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        before, link = match.groups()
        path = _in_repository(here, link)
        uri = _ROOT_PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"{path}.md")
        return before + posixpath.relpath(uri, posixpath.dirname(here) or ".")

    return _ROW.sub(lambda row: row[0].replace(r"\|", "|"), _LINK.sub(turned, markdown))


def _in_repository(uri: str, link: str) -> str:
    """The path from the root of the repository that `link` on page `uri` of the website leads to, from its source."""
    folder = "" if uri in _ROOT_PAGES.values() else posixpath.join("docs", posixpath.dirname(uri))
    return posixpath.normpath(posixpath.join(folder, link))
