"""Local rules: learning algorithms as short texts that run on every node and edge of a graph."""

from vsml.rules.canonical import canonical, rule_hash
from vsml.rules.compiled import CompiledRule, compile_rule
from vsml.rules.harness import Harness, StreamState
from vsml.rules.known import known_names, known_rule, read_rule
from vsml.rules.machine import Machine, Ports
from vsml.rules.memory import memory_of, slots_of
from vsml.rules.mistakes import RuleError
from vsml.rules.parser import parse
from vsml.rules.printer import show
from vsml.rules.program import Capacity, Program, pack, pack_all
from vsml.rules.rule import Rule, with_constants
from vsml.rules.settings import Settings

__all__ = [
    "Capacity",
    "CompiledRule",
    "Harness",
    "Machine",
    "Ports",
    "Program",
    "Rule",
    "RuleError",
    "Settings",
    "StreamState",
    "canonical",
    "compile_rule",
    "known_names",
    "known_rule",
    "memory_of",
    "pack",
    "pack_all",
    "parse",
    "read_rule",
    "rule_hash",
    "show",
    "slots_of",
    "with_constants",
]
