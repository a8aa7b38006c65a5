"""What the site's search finds: the index of a built site, searched as its pages do, by lunr.

    python tests/site_search.py site "Where is a Slurm requeue decided?" ...

It runs in the environment that builds the site. Prints a list of [location, title, text] for each question
as JSON, best first.
"""

import json
import re
import sys
from html import unescape
from pathlib import Path

from lunr import lunr

FOUND = 5
"""Sections that are shown at most."""


def plain(html: str) -> str:
    """Return text without its tags."""
    return unescape(re.sub(r"<[^>]+>", " ", html))


def main(folder: str, *questions: str) -> None:
    """Print what is found."""
    index = json.loads(Path(folder, "search", "search_index.json").read_text(encoding="utf-8"))
    sections = {section["location"]: section for section in index["docs"]}
    documents = [
        (
            {"location": place, "title": plain(section["title"]), "text": plain(section["text"])},
            {"boost": section.get("boost", 1)},
        )
        for place, section in sections.items()
    ]
    boosts = index["config"]["fields"]
    fields = [{"field_name": name, "boost": boosts[name]["boost"]} for name in ("title", "text")]
    search = lunr(ref="location", fields=fields, documents=documents)
    answers = []
    for question in questions:
        words = re.sub(r"[^\w\s]", " ", question)
        places = [result["ref"] for result in search.search(words)[:FOUND]]
        answers.append(
            [[place, plain(sections[place]["title"]), plain(sections[place]["text"])] for place in places]
        )
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
