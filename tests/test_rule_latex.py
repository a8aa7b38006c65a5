"""Rules as equations: well formed, and with the numbers of the rule."""

import re
import sys

import jax
import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

from vsml.graphs import generate, to_arrays
from vsml.launching.rules import main
from vsml.rules import known_names, known_rule, parse
from vsml.rules.machine import apply, graph_registers
from vsml.rules.operators import OPERATORS
from vsml.rules.rule import FIRST_CONSTANT, FIRST_GRAPH_VALUE, FIRST_INSTRUCTION, FIRST_PORT, PRIVATE

sympy = pytest.importorskip("sympy")

from vsml.reporting.rule_latex import Algebra, Reduced, Sigmoid, Truth, latex  # noqa: E402

ALL_OPERATORS = """@c = 0.3
a : node
b : node
s : edge
m : edge shared(mean)
s <- sin(m) / (2 + abs(a)) - sigmoid(rev(s)) if a < b
m <- relu(rev(s)) * exp(-abs(s)) + log(2 + square(s)) if incoming * (b >= c)
b <- mean(rev(s), outgoing) + max(s, m > 0) - min(s) * std(m) + sign(a) * (b > 0)
a <- minimum(a, b) + maximum(a, c) + sqrt(a) - (a - b) + 2 * (a - a) + count(rev(s)) + degree
out = a
"""

TEXTS = {name: known_rule(name).text for name in known_names()} | {"all operators": ALL_OPERATORS}

DELTA = r"""\begin{aligned}
s_{ij} &\leftarrow \begin{cases} x_{i} & \text{if}\: x^{\mathrm{on}}_{i} > 0 \\ s_{ij} & \text{otherwise} \end{cases} \\
a_{i} &\leftarrow \sum_{j \to i} \left(s_{ji} \, w_{ij}\right) \\
w_{ij} &\leftarrow \begin{cases} w_{ij} - \mathrm{lr} \, s_{ji} \, t_{i} & \text{if}\: t^{\mathrm{on}}_{i} > 0 \\ w_{ij} & \text{otherwise} \end{cases} \\
\mathrm{out}_{i} &= a_{i}
\end{aligned}
"""  # noqa: E501  # as it is printed


def equations_in(text):
    body = text.partition("\\begin{aligned}\n")[2].partition("\n\\end{aligned}")[0]
    return body.split(" \\\\\n")


def test_the_delta_rule_is_as_in_a_paper():
    assert latex(parse(TEXTS["delta"])).endswith(DELTA)


@pytest.mark.parametrize("name", TEXTS)
def test_equations_are_well_formed(name):
    text = latex(parse(TEXTS[name]))
    equations = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    plain = equations.replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for sign in re.findall(r"[{}]", plain):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+)\}", equations):
        if kind == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert opened == []
    assert len(re.findall(r"\\left\b", equations)) == len(re.findall(r"\\right\b", equations))
    # A bracket after a line break would be an option of the break.
    assert not re.search(r"\\\\\s*\[", equations)


@pytest.mark.parametrize("name", TEXTS)
def test_what_has_no_cases_is_drawn_by_matplotlib(name):
    drawn = 0
    for equation in equations_in(latex(parse(TEXTS[name]))):
        if "cases" not in equation:
            MathTextParser("path").parse(f"${equation.replace('&', '')}$")
            drawn += 1
    assert drawn


def numbers(expression, held, graph):
    """Return what an expression of sympy comes to at each half-edge."""

    def value(part):
        return numbers(part, held, graph)

    parts = expression.args
    match expression:
        case sympy.Symbol():
            return held[expression.name]
        case sympy.Number():
            return np.full(len(graph.node), float(expression))
        case sympy.Add():
            return sum(map(value, parts))
        case sympy.Mul():
            return np.prod([value(part) for part in parts], axis=0)
        case sympy.Pow():
            return value(parts[0]) ** value(parts[1])
        case sympy.Max() | sympy.Min():
            function = np.max if isinstance(expression, sympy.Max) else np.min
            return function([value(part) for part in parts], axis=0)
        case sympy.Piecewise():
            (yes, condition), (no, _) = parts
            return np.where(value(condition), value(yes), value(no))
        case sympy.logic.boolalg.BooleanTrue():
            return np.ones(len(graph.node), bool)
        case sympy.And() | sympy.Or():
            function = np.all if isinstance(expression, sympy.And) else np.any
            return function([value(part) for part in parts], axis=0)
        case sympy.StrictGreaterThan() | sympy.StrictLessThan():
            return value(expression.gts) > value(expression.lts)
        case sympy.GreaterThan() | sympy.LessThan():
            return value(expression.gts) >= value(expression.lts)
        case Truth():
            return value(parts[0]).astype(float)
        case Sigmoid():
            return 1 / (1 + np.exp(-value(parts[0])))
        case Reduced():
            return reduced(str(parts[0]), value(parts[1]), value(parts[2]), graph)
    name = {"Abs": "abs"}.get(expression.func.__name__, expression.func.__name__)
    return getattr(np, name)(value(parts[0]))


def reduced(name, values, passes, graph):
    found = np.zeros(len(values))
    for node in range(graph.num_nodes):
        own = graph.node == node
        among = values[own & passes]
        function = {"count": len, "sum": np.sum}.get(name, getattr(np, name, None))
        found[own] = function(among) if len(among) else 0
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_equations_have_the_numbers_of_the_rule(name, double):
    rule = parse(TEXTS[name])
    graph = generate("waxman", 2, 4, 1, seed=1)
    arrays = to_arrays(graph)
    half_edges = arrays.num_half_edges
    random = np.random.default_rng(5)

    def of_nodes():
        return random.uniform(-2, 2, graph.num_nodes)[graph.node]

    held = {}
    registers = {}
    algebra = Algebra(rule)
    for number, slot in enumerate(rule.slots):
        is_node = slot.kind == 0
        registers[number] = of_nodes() if is_node else random.uniform(-2, 2, half_edges)
        held[algebra.value(number).name] = registers[number]
        if slot.kind == PRIVATE:
            other = algebra.value(number).name.replace("_{ij}", "_{ji}")
            held[other] = registers[number].reshape(-1, 2)[:, ::-1].reshape(-1)
    for number in range(FIRST_PORT, FIRST_GRAPH_VALUE):
        is_switch = number in (FIRST_PORT + 1, FIRST_PORT + 3)
        registers[number] = (of_nodes() > 0).astype(float) if is_switch else of_nodes()
    for number, values in enumerate(np.asarray(graph_registers(arrays, np.float64))):
        registers[FIRST_GRAPH_VALUE + number] = values
    for number, constant in enumerate(rule.constants):
        registers[FIRST_CONSTANT + number] = np.full(half_edges, constant.value)
    for number in range(FIRST_PORT, FIRST_CONSTANT + len(rule.constants)):
        expression = algebra.value(number)
        if isinstance(expression, sympy.Symbol):
            held[expression.name] = registers[number]
    for number, entry in enumerate(rule.tick):
        operands = (*entry.operands, -1, -1, -1)[:3]
        result = apply(
            OPERATORS[entry.operator], arrays, lambda place: jax.numpy.asarray(registers[place]), operands
        )
        registers[FIRST_INSTRUCTION + number] = np.asarray(result)
    compared = 0
    for equation in algebra.equations():
        found = numbers(sympy.sympify(equation.value), held, graph)
        np.testing.assert_allclose(found, registers[equation.register], rtol=1e-9, atol=1e-9)
        compared += 1
        if equation.guard is not None:
            slot = next(
                slot for slot in rule.slots if algebra._slot(slot) == equation.left and slot.guard >= 0
            )
            passes = numbers(equation.guard, held, graph)
            np.testing.assert_array_equal(passes, registers[slot.guard] > 0)
        if not equation.is_store:
            held[equation.left] = found
    assert compared == len(rule.body)


def test_the_command_prints_equations(capsys):
    assert main(["show", "delta", "--latex"]) == 0
    assert capsys.readouterr().out.endswith(DELTA)


def test_without_sympy_the_command_says_what_brings_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "vsml.reporting.rule_latex")
    monkeypatch.setitem(sys.modules, "sympy", None)
    assert main(["show", "delta", "--latex"]) == 2
    assert 'python -m pip install "vsml[latex]"' in capsys.readouterr().err
