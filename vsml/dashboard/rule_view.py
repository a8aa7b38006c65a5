"""The page of one rule: its text, what it reached, its family, what its lines are worth, and commands."""

from typing import Any

from vsml.dashboard.look import begin_page, linked, markup, told_errors
from vsml.dashboard.panel import rule_buttons
from vsml.reporting.search_page import best_rule, rule_section
from vsml.reporting.search_parts import note, table, when
from vsml.search.store.database import Database
from vsml.search.store.overview import overview
from vsml.search.store.queries import evaluations_of, rule_of_hash
from vsml.search.store.rows import RuleRow
from vsml.system.extras import needed_for
from vsml.system.hashes import SHOWN_DIGITS

with needed_for("dashboards"):
    from nicegui import ui


def rule_page(database: Database, digits: str) -> None:
    """Build the page of the rule whose hash begins with some digits."""
    begin_page("Rule")
    error = ui.label().classes("said")
    with told_errors(error):
        row = rule_of_hash(database, digits)
        best = best_rule(database, overview(database), row, "")
        markup(linked(rule_section(best)))
        ui.link("Step through it", f"/step?rule={row.hash}")
        rule_buttons(database, row.hash[:SHOWN_DIGITS])
        markup(f"<h2>Evaluations</h2>{_evaluations(database, row)}")


def _evaluations(database: Database, row: RuleRow) -> str:
    rows: list[dict[str, Any]] = []
    for each in evaluations_of(database, row.hash):
        rows.append(
            {
                "test": each.test,
                "level": each.level,
                "seeds": each.seeds,
                "status": each.status,
                "score": each.score,
                "standard error": each.standard_error,
                "run": each.run,
                "when": when(each.time_s),
            }
        )
    return table(rows) if rows else note("No test of this rule is in this database.")
