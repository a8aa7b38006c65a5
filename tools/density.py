"""Density of the code: tokens a code line, comprehensions and comments, for the densest files.

    python tools/density.py [--most 10] [FILE ...]

By default of all files below vsml/. Docstrings, comments and blank lines are no code lines.
"""

import argparse
import ast
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LEAST_LINES = 40
"""Files with fewer code lines are left out: one long import decides about them."""

AIM = 8.0
"""Tokens a code line at most, in files that are pleasant to read."""

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Density:
    """Counts of one file.

    Attributes:
        path: the file.
        tokens: of its code lines.
        lines: its code lines.
        comprehensions: comprehensions and generator expressions.
        comments: lines that hold nothing but a comment.
    """

    path: Path
    tokens: int
    lines: int
    comprehensions: int
    comments: int

    @property
    def tokens_a_line(self) -> float:
        """Tokens a code line."""
        return self.tokens / max(1, self.lines)


def measure(path: Path) -> Density:
    """Count what a Python file holds."""
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    docstrings = _docstring_lines(path)
    code = [token for token in tokens if token.type not in _LAYOUT and token.start[0] not in docstrings]
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    whole_lines = [comment for comment in comments if comment.line.lstrip().startswith("#")]
    nodes = ast.walk(ast.parse(path.read_text()))
    return Density(
        path=path,
        tokens=len(code),
        lines=len({token.start[0] for token in code}),
        comprehensions=sum(isinstance(node, _COMPREHENSIONS) for node in nodes),
        comments=len(whole_lines),
    )


def _docstring_lines(path: Path) -> set[int]:
    """Return the lines on which a bare string starts: docstrings of modules, classes, functions, names."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            lines.add(node.lineno)
    return lines


def main() -> None:
    """Print a table of the densest files."""
    parser = argparse.ArgumentParser(description="Tokens a code line of the densest files.")
    parser.add_argument("files", nargs="*", type=Path, help="files to measure; by default all below vsml/")
    parser.add_argument("--most", type=int, default=10, help="how many files to show")
    options = parser.parse_args()
    paths = options.files or sorted((ROOT / "vsml").rglob("*.py"))
    measured = [measure(path) for path in paths]
    shown = [each for each in measured if options.files or each.lines >= LEAST_LINES]
    shown.sort(key=lambda each: each.tokens_a_line, reverse=True)
    print("tokens a line | comprehensions a 100 lines | comments a 100 lines | file")
    for each in shown[: options.most]:
        comprehensions = 100 * each.comprehensions / max(1, each.lines)
        comments = 100 * each.comments / max(1, each.lines)
        path = each.path.resolve().relative_to(ROOT)
        print(f"{each.tokens_a_line:13.1f} | {comprehensions:26.1f} | {comments:20.1f} | {path}")
    tokens = sum(each.tokens for each in measured)
    lines = sum(each.lines for each in measured)
    comments = 100 * sum(each.comments for each in measured) / max(1, lines)
    print(f"all {len(measured)} files: {tokens / max(1, lines):.1f} tokens a line, {comments:.1f} % comments")
    print(f"aim: at most {AIM} in the densest files")


if __name__ == "__main__":
    main()
