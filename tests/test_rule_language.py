"""Texts of rules: what is read is written back, one meaning has one hash, and every mistake is named."""

import re
from dataclasses import replace

import pytest
from random_rules import random_rule

from vsml.rules import RuleError, canonical, parse, rule_hash, show
from vsml.rules.operators import OPERATORS
from vsml.rules.rule import Constant

HEAD = """
w : edge shared(owner) = 0
s : edge
a : node
""".lstrip()


def mistakes_of(text):
    with pytest.raises(RuleError) as caught:
        parse(text)
    return caught.value.mistakes


def with_line(line):
    return f"{HEAD}{line}\nout = a\n"


@pytest.mark.parametrize("seed", range(50))
def test_a_rule_that_is_written_and_read_is_the_same(seed):
    rule = parse(random_rule(seed))
    assert parse(show(rule)) == rule


@pytest.mark.parametrize("seed", range(50))
def test_the_canonical_form_of_a_canonical_form_is_itself(seed):
    rule = canonical(parse(random_rule(seed)))
    assert canonical(rule) == rule
    assert parse(show(rule)) == rule


def renamed(text):
    other = re.sub(r"\bm(\d)", r"slot_\1", text)
    return re.sub(r"\bk\b", "gain", re.sub(r"\bv(\d)", r"value_\1", other))


@pytest.mark.parametrize("seed", range(50))
def test_names_comments_and_unused_parts_leave_the_hash_alone(seed):
    text = random_rule(seed)
    unused = "@spare = 3\nidle : node = 7\nidle <- 1\n"
    other = unused + renamed(text).replace("\n", "   # a comment\n\n")
    assert rule_hash(parse(other)) == rule_hash(parse(text))


def test_the_order_of_independent_lines_leaves_the_hash_alone():
    one = "a : node\nb : node = 3\nz = x * 2\ny = t + b\nb <- z\na <- y - z\nout = a\n"
    other = "b : node = 3\na : node\ny = t + b\nz = x * 2\nout = a\na <- y - z\nb <- z\n"
    assert parse(one) != parse(other)
    assert rule_hash(parse(one)) == rule_hash(parse(other))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1 * x", "0.2 * x"),
        ("0.1 * x", "0.1 + x"),
        ("0.1 * x", "x * 0.1"),
        ("0.1 * x", "k * x"),
        ("@k = 0.1", "@k = 0.11"),
        ("s : edge", "s : edge shared(sum)"),
        ("s : edge", "s : edge = 0"),
        ("if x_on", ""),
        ("if x_on", "if t_on"),
        ("sum(s)", "sum(s, incoming)"),
    ],
)
def test_another_meaning_has_another_hash(old, new):
    text = "@k = 0.1\na : node\ns : edge\ns <- 0.1 * x if x_on\na <- sum(s) + k\nout = a\n"
    assert old in text
    assert rule_hash(parse(text)) != rule_hash(parse(text.replace(old, new)))


def test_hashes_are_those_of_earlier_versions():
    text = "@k = 0.5\ns : edge\na : node\ns <- x + k * sum(rev(s))\na <- tanh(a - s_in) if x_on\nout = a\n"
    text = text.replace("s_in", "mean(rev(s), incoming)")
    assert rule_hash(parse(text)) == "0a458349698b5c545cdadb7187a0c35cb867aaecce1367c632d4831ef0ed550d"


def test_equal_operators_are_one_in_the_canonical_form():
    rule = parse(with_line("a <- sum(rev(s)) * sum(rev(s)) + sum(rev(s))"))
    assert (rule.size, canonical(rule).size) == (8, 4)


def test_what_a_tuned_constant_is_changed_to_is_written():
    rule = parse("@k = 0.5\na : node\na <- k * x\nout = a\n")
    changed = replace(rule, constants=(Constant(0.25, "k"),))
    assert changed.tuned == {"k": 0.25}
    assert show(changed).startswith("@k = 0.25\n")


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("a-(x-t)", "a - (x - t)"),
        ("(a-x)-t", "a - x - t"),
        ("a/(x*t)", "a / (x * t)"),
        ("-(a+x)*t", "-(a + x) * t"),
        ("- 3 * -x", "-3 * -x"),
        ("--3 - -2", "--3 - -2"),
        ("(a < x) <= (t > 1)", "(t > 1) >= (x > a)"),
        ("a + (x > t)", "a + (x > t)"),
        ("a > x + t", "a > x + t"),
        ("1.50 + .5 + 1e-3", "1.5 + 0.5 + 0.001"),
    ],
)
def test_expressions_are_written_with_the_parentheses_they_need(expression, written):
    rule = parse(with_line(f"a <- {expression}"))
    assert f"a <- {written}\n" in show(rule)
    assert parse(show(rule)) == rule


def test_blanks_and_comments_are_free():
    tight = "@k=.5\nw:edge shared(owner)=k\na:node\na<-x if x_on\nout=a"
    airy = "# rule\n\n @ k  =  0.5 # k\n w  :  edge  shared ( owner )  =  k\n\ta : node\n"
    airy += " a <- x  if  x_on\nout = a\n"
    assert parse(tight) == parse(airy)


def test_lines_are_counted_as_editors_do():
    text = "# one\x0b line \u2028 only\r\na : node\r\na <- y\r\nout = a\r\n"
    assert mistakes_of(text)[0][0] == 3
    assert parse(text.replace("y", "x")) == parse("a : node\na <- x\nout = a")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a", "not a statement"),
        ("a == x", "not a statement"),
        ("a <- x +", "syntax"),
        ("a <- (x", "syntax"),
        ("a <-", "syntax"),
        ("a <- x if x_on if t_on", "two `if`"),
        ("a <- x if", "syntax"),
        ("z = x if t", "syntax"),
        ("z = x if t else a", "if else is not part of the language"),
        ("a <- x ** 2", "** is not part of the language"),
        ("a <- x == t", "== is not part of the language"),
        ("a <- x and t", "and is not part of the language"),
        ("a <- not x", "not is not part of the language"),
        ("a <- +x", "unary + is not part of the language"),
        ("a <- a.b", "attribute is not part of the language"),
        ("a <- a[0]", "index is not part of the language"),
        ("a <- 'x'", "string"),
        ("a <- True", "True"),
        ("a <- 1j", "1j"),
        ("a <- sum(s, filter=x)", "keyword"),
        ("a <- x < t < 1", "chained"),
        ("a <- (sin)(x)(t)", "not part of the language"),
        ("a <- w(x)", "unknown operator w"),
        ("a <- sigmod(x)", "did you mean sigmoid?"),
        ("a <- sin(x, t)", "wrong number of operands of sin: got 2, expected 1"),
        ("a <- sum()", "wrong number of operands of sum: got 0, expected 1 or 2"),
        ("a <- count(s, x)", "count: got 2, expected 1"),
        ("a <- sum", "sum is an operator"),
        ("a <- degre", "degre is not defined above this line; did you mean degree?"),
        ("a <- out", "out is reserved"),
        ("a : edge", "a is already defined in line 3"),
        ("a = x", "a is already defined in line 3"),
        ("@a = 1", "a is already defined in line 3"),
        ("x : node", "x is reserved"),
        ("sum = x", "sum is reserved"),
        ("out : node", "out is reserved"),
        ("in : node", "in is reserved"),
        ("b : vertex", "unknown slot kind 'vertex'"),
        ("b : edge shared(max)", "unknown slot kind"),
        ("b : nodeedge", "unknown slot kind"),
        ("@k = 1 + 1", "'1 + 1' is not one number"),
        ("@k = x", "'x' is not one number"),
        ("@k 3", "not a statement"),
        ("@k = 10001", "number out of range: got 10001"),
        ("a <- 1e999", "number out of range"),
        ("a <- x + -10000.5", "number out of range"),
        ("x <- a", "store to x, a port: read-only"),
        ("degree <- a", "store to degree, a graph value: read-only"),
        ("sum <- a", "read-only"),
        ("zz <- a", "zz is not defined"),
        ("a <- s", "edge value for the node slot a: reduce it first"),
        ("a <- x if s", "edge guard for the node slot a: reduce it first"),
        ("b : node = parity", "edge value of an initialisation for the node slot b: reduce it first"),
        ("a <- sum(rev(a))", "rev of a, which is no private edge slot"),
        ("a <- sum(rev(s, x))", "wrong number of operands of rev"),
        ("a <- sum(rev(x))", "rev of x"),
        ("z = uniform()", "uniform outside of an initialisation"),
        ("b : node = a", "slot a cannot stand in an initialisation"),
        ("b : node = x", "port x cannot stand in an initialisation"),
    ],
)
def test_every_mistake_is_named_with_its_line(line, words):
    ((number, message), *_) = mistakes_of(with_line(line))
    assert number == 4
    assert words in message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("z = x\nz <- a", "store to z, a definition: read-only"),
        ("@k = 1\nk <- a", "store to k, a constant: read-only"),
        ("a <- x\na <- t", "second store to a: the first is in line 4"),
        ("z = x\nb : node = z", "definition z cannot stand in an initialisation"),
        ("out = a\nout = a", "out is given twice"),
        ("z = x\nout = z", "z is not a node slot"),
        ("a <- x\nout = s", "s is not a node slot"),
        ("a <- x\nout = a + 1", "'a + 1' is not a node slot"),
        ("a <- x\nout = b", "b is not defined"),
    ],
)
def test_mistakes_that_two_lines_make_are_in_the_second(lines, words):
    ((number, message), *_) = mistakes_of(f"{HEAD}{lines}\n")
    assert number == 5
    assert words in message


def test_all_mistakes_are_told_at_once_and_none_that_only_follows_from_another():
    text = "a : node\nz = foo(x) + bar\ny = z + 1\na <- y if edge_noise\nb <- a\nout = a\n"
    assert [line for line, _ in mistakes_of(text)] == [2, 2, 5]
    with pytest.raises(RuleError, match=r"line 2: unknown operator foo.*\nline 2: bar is not defined"):
        parse(text)


def test_a_missing_out_is_told_only_if_nothing_else_is_wrong():
    assert mistakes_of("a : node\na <- x\n\n") == ((3, "out is missing: expected `out = slot` once"),)
    assert [line for line, _ in mistakes_of("a : node\na <- y\n")] == [2]
    assert mistakes_of("")[0][0] == 1


def slots(count):
    return "".join(f"m{number} : node\n" for number in range(count))


def test_limits_are_kept_and_the_line_that_exceeds_them_is_named():
    assert parse(f"{slots(16)}out = m0")
    assert mistakes_of(f"{slots(18)}out = m0")[0] == (17, "too many slots: got 17, expected at most 16")

    signs = "a : node\nb : node\na <- x" + " + x" * 95
    assert parse(f"{signs}\nb <- -x\nout = a").size == 96
    assert mistakes_of(f"{signs}\nb <- --x\nout = a")[0][0] == 4

    initial = "a : node = 1" + " + 1" * 32
    assert parse(f"{initial}\nout = a")
    assert mistakes_of(f"{initial}\nb : node = degree + 1\nout = a")[0][0] == 2

    constants = "".join(f"@c{number} = 1\n" for number in range(22))
    assert parse(f"{constants}a : node\na <- 1 + -1 + 1\nout = a")
    assert mistakes_of(f"{constants}a : node\na <- 1 + -1 + 2\nout = a\n")[0][0] == 24


def test_expressions_of_any_length_are_refused_and_not_fatal():
    for text in ("x" + " + x" * 50_000, "(" * 5_000 + "x" + ")" * 5_000, "-" * 5_000 + "x"):
        assert mistakes_of(with_line(f"a <- {text}"))[0][0] == 4


def test_there_are_29_operators():
    assert len({operator.name for operator in OPERATORS}) == len(OPERATORS) == 29
