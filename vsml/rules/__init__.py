"""Local rules: learning algorithms as short texts that run on every node and edge of a graph."""

from vsml.rules.canonical import canonical, rule_hash
from vsml.rules.mistakes import RuleError
from vsml.rules.parser import parse
from vsml.rules.printer import show
from vsml.rules.rule import Rule

__all__ = ["Rule", "RuleError", "canonical", "parse", "rule_hash", "show"]
