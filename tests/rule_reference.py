"""A slow reference of ticks: the text of a rule, read and run place by place, from its definition alone.

It shares nothing with the library: it walks Python's tree of each expression in every tick, and keeps numbers
of nodes and of half-edges in numpy arrays of float64.
"""

import ast
import math
import re

import numpy as np

FLOAT, NODE, EDGE = range(3)


def repair(values):
    return np.clip(np.where(np.isnan(values), 0.0, values), -10_000.0, 10_000.0)


class Value:
    """Numbers of a type: one, one for each node, or one for each half-edge."""

    def __init__(self, type_, numbers):
        self.type = type_
        self.numbers = repair(np.asarray(numbers, float))


def divide(a, b):
    return a / b if abs(b) >= 1e-6 else 0.0


def sigmoid(a):
    return 1 / (1 + math.exp(-a)) if a > -700 else 0.0


FUNCTIONS = {
    "minimum": min,
    "maximum": max,
    "sel": lambda c, a, b: a if c > 0 else b,
    "abs": abs,
    "square": lambda a: a * a,
    "sin": math.sin,
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "sign": lambda a: float(a > 0) - float(a < 0),
    "sigmoid": sigmoid,
    "exp": lambda a: math.exp(min(a, 700.0)),
    "log": lambda a: math.log(max(abs(a), 1e-6)),
    "sqrt": lambda a: math.sqrt(abs(a)),
}
SIGNS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: divide,
    ast.Gt: lambda a, b: float(a > b),
    ast.GtE: lambda a, b: float(a >= b),
    ast.Lt: lambda a, b: float(a < b),
    ast.LtE: lambda a, b: float(a <= b),
}
REDUCERS = {
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "max": max,
    "min": min,
    "std": lambda values: float(np.std(values)),
}


class Reference:
    """A rule on a graph."""

    def __init__(self, text, num_nodes, edges):
        self.num_nodes = num_nodes
        self.node = np.asarray(edges).reshape(-1)
        self.half_edges = len(self.node)
        self.constants = {}
        self.kinds = {}
        self.initials = {}
        self.body = []
        for line in text.splitlines():
            line = line.partition("#")[0].strip()
            if line.startswith("@"):
                name, number = line[1:].split("=")
                self.constants[name.strip()] = float(number)
            elif "<-" in line:
                name, expression = line.split("<-", 1)
                value, *guard = re.split(r"\bif\b", expression)
                self.body.append((name.strip(), "store", tree(value), tree(guard[0]) if guard else None))
            elif ":" in line:
                name, rest = line.split(":")
                kind, _, initial = rest.partition("=")
                self.kinds[name.strip()] = kind.strip()
                self.initials[name.strip()] = tree(initial) if initial else None
            elif line and not line.startswith("out"):
                name, expression = line.split("=", 1)
                self.body.append((name.strip(), "definition", tree(expression), None))

    def graph_values(self):
        ends = np.arange(self.half_edges)
        incoming = (ends % 2).astype(float)
        degree = np.bincount(self.node, minlength=self.num_nodes)
        return {
            "degree": Value(NODE, degree),
            "parity": Value(EDGE, 1 - 2 * incoming),
            "incoming": Value(EDGE, incoming),
            "outgoing": Value(EDGE, 1 - incoming),
        }

    def type_of(self, slot):
        return NODE if self.kinds[slot] == "node" else EDGE

    def tick(self, memory, ports):
        """Return the memory after a tick, {slot: [N] or [H]}; ports that are not given hold 0."""
        self.names = self.graph_values()
        self.names |= {name: Value(FLOAT, number) for name, number in self.constants.items()}
        self.names |= {slot: Value(self.type_of(slot), memory[slot]) for slot in self.kinds}
        for port in ("x", "x_on", "t", "t_on", "node_noise", "edge_noise"):
            type_ = EDGE if port == "edge_noise" else NODE
            size = self.half_edges if type_ == EDGE else self.num_nodes
            self.names[port] = Value(type_, ports.get(port, np.zeros(size)))
        new = {slot: self.names[slot].numbers.copy() for slot in self.kinds}
        for name, what, expression, guard in self.body:
            value = self.value(expression)
            if what == "definition":
                self.names[name] = value
                continue
            passes = Value(FLOAT, 1) if guard is None else self.value(guard)
            new[name] = self.stored(name, value, passes)
        return new

    def initial(self, memory):
        """Return memory with the initialisations that have no draws."""
        self.names = self.graph_values()
        self.names |= {name: Value(FLOAT, number) for name, number in self.constants.items()}
        new = dict(memory)
        for slot, expression in self.initials.items():
            type_ = self.type_of(slot)
            value = Value(FLOAT, 0) if expression is None else self.value(expression)
            numbers = self.spread(value, type_)
            new[slot] = np.repeat(numbers[1::2], 2) if "shared" in self.kinds[slot] else numbers
        return new

    def spread(self, value, type_):
        """Return the numbers of a value as one of a higher type."""
        if value.type == type_:
            return value.numbers
        if value.type == FLOAT:
            return np.full(self.num_nodes if type_ == NODE else self.half_edges, float(value.numbers))
        return value.numbers[self.node]

    def stored(self, slot, value, passes):
        type_ = self.type_of(slot)
        old = self.names[slot].numbers
        proposal = self.spread(value, type_)
        active = self.spread(passes, type_) > 0
        kind = self.kinds[slot]
        if "shared" not in kind:
            return np.where(active, proposal, old)
        new = old.copy()
        for low in range(0, self.half_edges, 2):
            ends = [end for end in (low, low + 1) if active[end]]
            held = old[low]
            if "owner" in kind:
                held = proposal[low + 1] if active[low + 1] else held
            elif "mean" in kind:
                held = sum(proposal[end] for end in ends) / len(ends) if ends else held
            else:
                held = held + sum(proposal[end] - held for end in ends)
            new[low : low + 2] = held
        return repair(new)

    def value(self, node):
        match node:
            case ast.Constant():
                return Value(FLOAT, node.value)
            case ast.Name():
                return self.names[node.id]
            case ast.UnaryOp():
                return self.elementwise(lambda a: -a, [node.operand])
            case ast.BinOp():
                return self.elementwise(SIGNS[type(node.op)], [node.left, node.right])
            case ast.Compare():
                return self.elementwise(SIGNS[type(node.ops[0])], [node.left, node.comparators[0]])
        name, operands = node.func.id, node.args
        if name in FUNCTIONS:
            return self.elementwise(FUNCTIONS[name], operands)
        if name == "rev":
            held = self.names[operands[0].id].numbers
            return Value(EDGE, [held[end ^ 1] for end in range(self.half_edges)])
        return self.reduced(name, operands)

    def elementwise(self, function, operands):
        values = [self.value(operand) for operand in operands]
        type_ = max(value.type for value in values)
        if type_ == FLOAT:
            return Value(FLOAT, function(*[float(value.numbers) for value in values]))
        columns = [self.spread(value, type_) for value in values]
        return Value(type_, [function(*map(float, place)) for place in zip(*columns, strict=True)])

    def reduced(self, name, operands):
        first, *filters = [self.spread(self.value(operand), EDGE) for operand in operands]
        passes = first > 0 if name == "count" else filters[0] > 0 if filters else np.ones(self.half_edges)
        results = []
        for node in range(self.num_nodes):
            own = [end for end in range(self.half_edges) if self.node[end] == node and passes[end]]
            if name == "count":
                results.append(len(own))
            else:
                results.append(REDUCERS[name]([first[end] for end in own]) if own else 0.0)
        return Value(NODE, results)


def tree(text):
    return ast.parse(text.strip(), mode="eval").body
