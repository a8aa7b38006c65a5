"""Words a sentence of the Markdown pages, and the longest sentences of each.

    python tools/prose.py [--longest 3] [FILE ...]

By default of README.md, CHANGELOG.md and all pages below docs/. Code, tables, headings and pictures are
left out.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

AIM = 20.0
"""Words a sentence at most, on average over a page."""

_FENCE = re.compile(r"^\s*```")
_LIST_ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+")
_LEFT_OUT = re.compile(r"^(\s*\||#|!\[|    (?! *[-*] ))")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"``[^`]+``|`[^`]+`")
# A sentence ends at a full stop, a question mark or an exclamation mark before a blank and a capital letter.
_END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[\"(*_]*[A-Z0-9`])")
# Abbreviations whose full stop ends no sentence.
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|Fig|vs|cf)\.")


@dataclass(frozen=True)
class Prose:
    """Sentences of one page.

    Attributes:
        path: the page.
        sentences: its sentences, without code, tables, headings and pictures.
    """

    path: Path
    sentences: tuple[str, ...]

    @property
    def words(self) -> float:
        """Words a sentence, on average."""
        total = sum(count_words(sentence) for sentence in self.sentences)
        return total / max(1, len(self.sentences))


def count_words(sentence: str) -> int:
    """Return the words of a sentence: what stands between blanks and has a letter or a digit."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def blocks_of(text: str) -> list[str]:
    """Return paragraphs and list items of a page, each on one line."""
    blocks: list[str] = []
    is_code = False
    is_open = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
            is_open = False
            continue
        is_continued = is_open and line.startswith("  ") and not line.lstrip().startswith("|")
        is_left_out = not is_continued and bool(_LEFT_OUT.match(line))
        if is_code or is_left_out or not line.strip():
            is_open = False
        elif is_open and not _LIST_ITEM.match(line):
            blocks[-1] += f" {line.strip()}"
        else:
            blocks.append(_LIST_ITEM.sub("", line).strip())
            is_open = True
    return blocks


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a page."""
    sentences = []
    for block in blocks_of(text):
        plain = _LINK.sub(r"\1", block)
        # A piece of code counts as one word, whatever stands in it.
        plain = _CODE.sub("Code", plain)
        plain = _ABBREVIATION.sub(r"\1", plain)
        sentences += [part for part in _END.split(plain) if count_words(part)]
    return sentences


def measure(path: Path) -> Prose:
    """Return the sentences of a Markdown file."""
    return Prose(path, tuple(sentences_of(path.read_text(encoding="utf-8"))))


def pages() -> list[Path]:
    """Return the pages that a person reads."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Print a line for each page, the longest sentences below it, and the mean over all."""
    parser = argparse.ArgumentParser(description="Words a sentence of Markdown pages.")
    parser.add_argument("files", nargs="*", type=Path, help="pages; by default README, changelog and docs/")
    parser.add_argument("--longest", type=int, default=0, help="how many long sentences of a page to show")
    options = parser.parse_args()
    measured = [measure(path) for path in options.files or pages()]
    print("words a sentence | sentences | page")
    for page in measured:
        path = page.path.resolve().relative_to(ROOT)
        print(f"{page.words:16.1f} | {len(page.sentences):9} | {path}")
        by_length = sorted(page.sentences, key=count_words, reverse=True)
        for sentence in by_length[: options.longest]:
            print(f"    {count_words(sentence)}: {sentence}")
    everything = Prose(ROOT, tuple(sentence for page in measured for sentence in page.sentences))
    print(f"{everything.words:16.1f} | {len(everything.sentences):9} | all (aim: at most {AIM:.0f})")


if __name__ == "__main__":
    main()
