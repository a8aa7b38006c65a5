"""Random texts of rules: every statement, kind, operator and type, always valid."""

import numpy as np

KINDS = ["node", "edge", "edge shared(owner)", "edge shared(mean)", "edge shared(sum)"]
UNARY = ["abs", "square", "sin", "tanh", "relu", "sign", "sigmoid", "exp", "log", "sqrt"]
REDUCERS = ["sum", "mean", "max", "min", "std"]
SIGNS = ["+", "-", "*", "/", "<", "<=", ">", ">="]
NODE_LEAVES = ["x", "x_on", "t", "t_on", "node_noise", "degree"]
EDGE_LEAVES = ["edge_noise", "parity", "incoming", "outgoing"]
INITIALS = ["0", "0.5", "normal() / sqrt(degree)", "uniform() - 0.5", "degree - sum(normal(), incoming)", "k"]


class RandomRule:
    """A rule that is drawn; `text` is its text."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.node_names = list(NODE_LEAVES)
        self.edge_names = list(EDGE_LEAVES)
        self.floats = ["k", "-0.5", "2", "0.3"]
        self.private = []
        lines = [f"@k = {self.random.normal():.3f}", *self.slots()]
        for number in range(self.random.integers(0, 6)):
            is_edge = self.random.random() < 0.5
            lines.append(f"v{number} = {self.value(is_edge, 2)}")
            (self.edge_names if is_edge else self.node_names).append(f"v{number}")
        for name, kind in self.kinds.items():
            if self.random.random() < 0.9:
                lines.append(self.store(name, kind != "node"))
        self.text = "\n".join([*lines, "out = m0"]) + "\n"

    def pick(self, values):
        return values[self.random.integers(len(values))]

    def slots(self):
        count = self.random.integers(1, 7)
        # A private slot among them, so that something crosses the edges.
        kinds = ["node", "edge", *[self.pick(KINDS) for _ in range(count)]]
        self.kinds = {f"m{number}": kind for number, kind in enumerate(kinds)}
        for name, kind in self.kinds.items():
            (self.node_names if kind == "node" else self.edge_names).append(name)
            if kind == "edge":
                self.private.append(name)
            initial = "" if self.random.random() < 0.5 else f" = {self.pick(INITIALS)}"
            is_refused = kind == "node" and "parity" in initial
            yield f"{name} : {kind}" + ("" if is_refused else initial)

    def store(self, name, is_edge):
        guard = "" if self.random.random() < 0.6 else f" if {self.value(is_edge, 1)}"
        return f"{name} <- {self.value(is_edge, 2)}{guard}"

    def leaf(self, is_edge):
        if self.random.random() < 0.15:
            return self.pick(self.floats)
        if is_edge and self.random.random() < 0.4:
            return f"rev({self.pick(self.private)})"
        return self.pick(self.edge_names if is_edge else self.node_names)

    def value(self, is_edge, depth):
        """Return an expression of type edge or below, or of type node or below."""
        if depth == 0:
            return self.leaf(is_edge)
        below = lambda: self.value(is_edge and self.random.random() < 0.8, depth - 1)  # noqa: E731
        match self.random.integers(5):
            case 0:
                return f"{self.pick(UNARY)}({below()})"
            case 1:
                return f"({below()}) {self.pick(SIGNS)} ({below()})"
            case 2:
                return self.pick(
                    ["minimum({}, {})", "maximum({}, {})", "sel({}, {}, k)", "-(({}) - ({}))"]
                ).format(below(), below())
            case 3:
                inside = self.value(True, depth - 1)
                kind = self.random.integers(3)
                if kind == 0:
                    return f"count({inside})"
                filtered = "" if kind == 1 else f", {self.value(True, 1)}"
                return f"{self.pick(REDUCERS)}({inside}{filtered})"
        return self.leaf(is_edge)


def random_rule(seed):
    return RandomRule(seed).text
