"""Pages of the site that are written elsewhere: hooks of mkdocs, named in mkdocs.yml.

- API reference: a page for each folder of vsml/ and each module at its root, from the docstrings.
- Tutorials: the notebooks of examples/ with their outputs, and its scripts, comments between their parts as
  prose.
- CHANGELOG.md, CONTRIBUTING.md and SECURITY.md.

In docs/architecture.md each row of the table of questions becomes a section, which the search finds. Links
of pages to examples/ lead to those pages. In the menu of mkdocs.yml capitals stand for them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]

NOT_PUBLIC = {"vsml.moved", "vsml.launching.version_0_1", "vsml.learners.flat", "vsml.config.renamed"}
"""Modules that serve old names only."""

TOP_FILES = {"CHANGELOG": "changelog.md", "CONTRIBUTING": "contributing.md", "SECURITY": "security.md"}
"""Pages at the root of the repository, by their word in the menu: the page of the site."""

TITLES = {
    "own_table_in_five_minutes": "Your own table in five minutes",
    "meta_train_and_look_inside": "Meta-train an algorithm, and look inside",
    "a_learner_of_your_own": "A learner of your own against the rest",
    "your_own_table": "Your own table",
    "meta_train": "Meta-train a learning algorithm",
    "relabelled_stream": "Labels that change their meaning",
}
"""Titles of examples in the order of the menu; others follow, by the name of their file."""


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Put the pages that are written here into the menu."""
    menus: dict[str, Any] = {
        "API": [{name: _api_path(name)} for name in api_pages()],
        "EXAMPLES": [{title: f"examples/{name}.md"} for name, title in _examples().items()],
        **TOP_FILES,
    }
    config.nav = _filled(config.nav, menus)
    return config


def _filled(menu: Any, menus: dict[str, Any]) -> Any:
    """Return a menu with its words in capitals replaced."""
    if isinstance(menu, list):
        return [_filled(entry, menus) for entry in menu]
    if isinstance(menu, dict):
        return {title: _filled(entry, menus) for title, entry in menu.items()}
    return menus.get(menu, menu)


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that are written here."""
    from mkdocs.structure.files import File

    written: dict[str, str | bytes] = {**written_pages()}
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        written |= notebook_files(notebook)
    for path, content in sorted(written.items()):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to what is in examples/ lead to its pages, and questions be sections."""
    if page.file.src_uri == "architecture.md":
        markdown = questions_as_sections(markdown)
    depth = page.file.src_uri.count("/")
    up = "../" * depth
    return re.sub(
        rf"\]\({re.escape(up)}\.\./examples/(\w+)\.(py|ipynb)\)",
        lambda link: f"]({up}examples/{link[1]}.md)",
        markdown,
    )


def questions_as_sections(markdown: str) -> str:
    """Return a page in which the rows of a table `| question | answer |` are sections with headings.

    Raises:
        ValueError: there is no such table.
    """
    heading = "| question | answer |\n|---|---|\n"
    before, found, after = markdown.partition(heading)
    if not found:
        raise ValueError(f"architecture.md: got no table {heading!r}, expected one of questions")
    rows, _, rest = after.partition("\n\n")
    sections = []
    for row in rows.splitlines():
        question, answer = row.strip("| ").split(" | ", 1)
        sections.append(f"### {question}\n\n{answer}\n")
    return before + "\n".join(sections) + "\n" + rest


def written_pages() -> dict[str, str]:
    """Return the Markdown of each page that is written here, by its path in the site."""
    pages = {_api_path(name): _api_page(name, modules) for name, modules in api_pages().items()}
    for name, title in _examples().items():
        script = ROOT / "examples" / f"{name}.py"
        if script.exists():
            pages[f"examples/{name}.md"] = tutorial(script.read_text("utf-8"), name, title)
    for name, path in TOP_FILES.items():
        pages[path] = _from_root((ROOT / f"{name}.md").read_text("utf-8"))
    return pages


def _from_root(text: str) -> str:
    """Return a page whose links start at the root of the repository with links of the site."""
    for name, path in TOP_FILES.items():
        text = text.replace(f"]({name}.md)", f"]({path})")
    return text.replace("](docs/", "](")


def api_pages() -> dict[str, list[str]]:
    """Return the public modules of the library, by the page of the reference that they are on."""
    pages: dict[str, list[str]] = {}
    for path in sorted((ROOT / "vsml").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        module = ".".join(parts)
        is_public = not any(part.startswith("_") for part in parts) and module not in NOT_PUBLIC
        if is_public:
            pages.setdefault(".".join(parts[:2]), []).append(module)
    return pages


def _api_path(name: str) -> str:
    return f"api/{name}.md"


def _api_page(name: str, modules: list[str]) -> str:
    """Return a page of the reference: what mkdocstrings makes of each module."""
    blocks = [f"::: {module}\n    options:\n      show_submodules: false\n" for module in modules]
    # What explains comes first in searches.
    front_matter = "---\nsearch:\n  boost: 0.2\n---\n"
    return "\n".join([front_matter, f"# {name}\n", *blocks])


def notebook_files(path: Path) -> dict[str, str | bytes]:
    """Return a notebook as a page and its pictures, by their paths in the site.

    Args:
        path: of the notebook, whose outputs are kept in it.
    """
    from nbconvert import MarkdownExporter

    names = {"unique_key": path.stem, "output_files_dir": ""}
    page, resources = MarkdownExporter().from_filename(str(path), resources=names)
    page = page.replace("](../docs/", "](../")
    page = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", page)
    page += f"\nThe notebook is `examples/{path.name}`. The tests run it.\n"
    pictures = {f"examples/{name}": content for name, content in resources["outputs"].items()}
    return {f"examples/{path.stem}.md": page, **pictures}


def _examples() -> dict[str, str]:
    """Return the title of each notebook and script in examples/, in the menu's order."""
    files = [*(ROOT / "examples").glob("*.ipynb"), *(ROOT / "examples").glob("*.py")]
    names = sorted(path.stem for path in files)
    titles = {name: title for name, title in TITLES.items() if name in names}
    others = {name: name.replace("_", " ").capitalize() for name in names if name not in titles}
    return titles | others


def tutorial(source: str, name: str, title: str) -> str:
    """Return a script as a page: its docstring, then its parts, each after the comment that begins it.

    Args:
        source: of the script.
        name: of its file, without ending.
        title: of the page.
    """
    docstring = ast.get_docstring(ast.parse(source)) or ""
    code = source.split('"""', 2)[2].strip("\n")
    page = [f"# {title}\n", docstring, ""]
    for comment, part in _parts(code):
        page += [comment, "", "```python", part, "```", ""]
    page += [f"The whole script is `examples/{name}.py`. The tests run it.\n"]
    return "\n".join(page)


def _parts(code: str) -> Iterator[tuple[str, str]]:
    """Yield comment and code of each part; a part begins with comment lines after a blank line."""
    comment: list[str] = []
    part: list[str] = []
    was_blank = True
    for line in code.splitlines():
        is_comment = line.startswith("# ")
        if is_comment and (was_blank or (comment and not part)):
            if part:
                yield " ".join(comment), "\n".join(part).strip("\n")
                comment, part = [], []
            comment.append(line.removeprefix("# "))
        else:
            part.append(line)
        was_blank = not line
    yield " ".join(comment), "\n".join(part).strip("\n")
