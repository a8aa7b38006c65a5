"""The database of the search: rules, what they reached, and who searches; docs/rules_database.md."""

from vsml.search.store.copies import export, merge
from vsml.search.store.database import Database
from vsml.search.store.errors import (
    AwayError,
    DamagedError,
    MissingError,
    SchemaVersionError,
    StoreError,
)
from vsml.search.store.queries import (
    Family,
    Found,
    Query,
    ancestors,
    descendants,
    evaluations_of,
    find_rules,
    known_hashes,
    known_rules,
    origins_of,
    rule_of_hash,
    sizes,
)
from vsml.search.store.rows import (
    CellRow,
    EvaluationRow,
    EventRow,
    IslandRow,
    ParentRow,
    Row,
    RuleRow,
    RunRow,
    WorkerRow,
    rule_row,
)
from vsml.search.store.spool import Spool
from vsml.search.store.tables import insert_all
from vsml.search.store.work import Claim, claim, release
from vsml.search.store.writer import Flush, Writer

__all__ = [
    "AwayError",
    "CellRow",
    "Claim",
    "DamagedError",
    "Database",
    "EvaluationRow",
    "EventRow",
    "Family",
    "Flush",
    "Found",
    "IslandRow",
    "MissingError",
    "ParentRow",
    "Query",
    "Row",
    "RuleRow",
    "RunRow",
    "SchemaVersionError",
    "Spool",
    "StoreError",
    "WorkerRow",
    "Writer",
    "ancestors",
    "claim",
    "descendants",
    "evaluations_of",
    "export",
    "find_rules",
    "insert_all",
    "known_hashes",
    "known_rules",
    "merge",
    "origins_of",
    "release",
    "rule_of_hash",
    "rule_row",
    "sizes",
]
