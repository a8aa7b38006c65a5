"""What a search starts from: known rules, whole or damaged, and those of a database."""

from collections.abc import Sequence

from vsml.rules.known import rule_text
from vsml.rules.parser import parse
from vsml.search.damage import damaged
from vsml.search.genome import Genome, genome_of
from vsml.search.settings import Chosen, Room, Start


def texts_of(start: Start) -> list[list[str]]:
    """Return the texts of the rules of each source, but of rules that are drawn: an empty list.

    Files and the database are read here and nowhere else.

    Raises:
        ValueError: there is no such rule, it has not enough lines to be damaged, or the database has none.
        OSError: a file cannot be read.
        RuleError: a file has mistakes.
        StoreError: the database cannot be used.
    """
    found: list[list[str]] = []
    if start.drawn:
        found.append([])
    if start.rules:
        damage = start.damage
        found.append([damaged(rule_text(name), damage.lines, damage.seed) for name in start.rules])
    if start.database is not None:
        found.append(_texts_in(start.database, start.chosen))
    return found


def genomes_of(texts: Sequence[Sequence[str]], room: Room) -> list[list[Genome]]:
    """Return the rules of each source.

    Raises:
        ValueError: there is no room for one of them.
        RuleError: a text has mistakes.
    """
    return [[genome_of(parse(text), room.capacity) for text in source] for source in texts]


def _texts_in(url: str, chosen: Chosen) -> list[str]:
    # Imported here: not every search has a database.
    from vsml.search.store import Database, Query, find_rules

    query = Query(passed=chosen.test is not None, **chosen.model_dump())
    with Database(url) as database:
        found = find_rules(database, query)
    if not found:
        wanted = ", ".join(f"{name} {value}" for name, value in chosen.model_dump(exclude_none=True).items())
        raise ValueError(f"start.database: got {url} without such rules, expected some with {wanted}")
    return [each.row.text for each in found]
