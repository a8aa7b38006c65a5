"""Diagrams of the documentation, drawn as SVG: a synapse, the two loops, the plan of the house.

    python tools/diagrams.py [--output docs]

The same code draws the same bytes. Each drawing brings its own light background, so that it can be read on
light and on dark pages.
"""

import argparse
import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]

Point = tuple[float, float]

HEAD = 9.0
"""Length of an arrow's head (pixels)."""

# Okabe and Ito's colours, told apart with every kind of colour vision.
STYLE = """
    text { font-family: Helvetica, Arial, 'Liberation Sans', sans-serif; font-size: 13px; fill: #1f2328; }
    .code { font-family: Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 12px; }
    .title { font-weight: bold; font-size: 14px; }
    .quiet { fill: #57606a; font-size: 12px; }
    .forward { stroke: #0072b2; fill: #0072b2; }
    .backward { stroke: #c04d00; fill: #c04d00; }
    .plain { stroke: #57606a; fill: #57606a; }
    .faint { stroke: #a8b0b8; fill: #a8b0b8; }
    path { fill: none !important; stroke-width: 2; }
    polygon { stroke: none !important; }
    rect { fill: #ffffff; stroke: #57606a; stroke-width: 1.2; }
    rect.page { fill: #fbfcfd; stroke: #d0d7de; }
    rect.panel { fill: #f0f4f8; stroke: #b6c2cf; }
    rect.accent { fill: #fff5d6; stroke: #b58900; }
    rect.inner { fill: #e3f1fa; stroke: #0072b2; }
    .dashed { stroke-dasharray: 5 4; }
"""


@dataclass
class Drawing:
    """A picture under construction. x goes to the right and y down, both in pixels.

    Attributes:
        width: of the picture.
        height: of the picture.
        title: what it shows, for readers that cannot see it.
        parts: what was drawn so far, as SVG elements.
    """

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, kind: str = "", radius: float = 8) -> None:
        """Draw a rectangle with round corners."""
        size = f'width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" {size}/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Write one line; y is its baseline, and x its middle, or its start or end by `anchor`."""
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {place}>{escape(words)}</text>')

    def lines(
        self,
        x: float,
        y: float,
        lines: Sequence[str],
        kind: str = "",
        step: float = 18,
        anchor: str = "middle",
    ) -> None:
        """Write lines below one another."""
        for number, line in enumerate(lines):
            self.text(x, y + number * step, line, kind, anchor)

    def labelled(self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> None:
        """Draw a box, the first line in bold and the others below it."""
        self.box(x, y, width, height, kind)
        step = 18
        # The baseline of the first line, so that all lines together are in the middle of the box.
        first = y + height / 2 + 5 - step * (len(lines) - 1) / 2
        self.text(x + width / 2, first, lines[0], "title")
        self.lines(x + width / 2, first + step, lines[1:], "quiet", step)

    def line(self, points: Sequence[Point], kind: str = "plain") -> None:
        """Draw a line through points."""
        steps = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="{kind}" d="M {steps}"/>')

    def arrow(self, points: Sequence[Point], kind: str = "plain") -> None:
        """Draw a line through points with a head at the last one."""
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        along = (math.cos(angle) * HEAD, math.sin(angle) * HEAD)
        across = (-along[1] / 2, along[0] / 2)
        # The line ends inside of the head, whose tip it would blunt.
        end = (round(x1 - along[0] * 0.7, 2), round(y1 - along[1] * 0.7, 2))
        self.line([*points[:-1], end], kind)
        corners = [
            (x1, y1),
            (x1 - along[0] + across[0], y1 - along[1] + across[1]),
            (x1 - along[0] - across[0], y1 - along[1] - across[1]),
        ]
        drawn = " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)
        name = kind.split()[0]
        self.parts.append(f'<polygon class="{name}" points="{drawn}"/>')

    def across(self, start: float, end: float, y: float, kind: str = "plain") -> None:
        """Draw a level arrow from one x to another."""
        self.arrow([(start, y), (end, y)], kind)

    def svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        inside = f'width="{self.width - 1}" height="{self.height - 1}" rx="10"'
        page = f'<rect class="page" x="0.5" y="0.5" {inside}/>'
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        title = f"<title>{escape(self.title)}</title>"
        body = [opening, title, f"<style>{STYLE}</style>", page, *self.parts, "</svg>"]
        return "\n".join(body) + "\n"


def draw_message(drawing: Drawing, start: float, end: float, y: float, words: str) -> None:
    """Draw a message between a unit and a synapse: forward if it goes to the right, else backward."""
    drawing.across(start, end, y, "forward" if end > start else "backward")
    middle = (start + end) / 2
    drawing.text(middle, y - 10, words, "code")
    drawing.text(middle, y + 18, "M numbers", "quiet")


def draw_synapse() -> Drawing:
    """Draw one synapse of a dense layer: two units, the cell between them, messages both ways."""
    drawing = Drawing(700, 382, "A synapse between input unit a and output unit b, and its messages")
    middle = 350
    forward_y, backward_y = 165, 255

    # Meta-parameters, above: every synapse has the same.
    drawing.labelled(
        205, 14, 290, 48, "meta-parameters θ", "one set, the same in every synapse", kind="accent"
    )
    drawing.arrow([(middle, 62), (middle, 96)], "plain dashed")

    # The cell.
    drawing.box(205, 96, 290, 226, "panel")
    drawing.text(middle, 118, "synapse (a, b): an LSTM cell", "title")
    drawing.labelled(222, 130, 256, 54, "state h, c", "N numbers each, its own", kind="inner")
    equations = (
        "i, g, f, o =",
        "  W [m_fwd[a]; m_bwd[b]; h] + bias",
        "c' = s(f+5) c + s(i-5) tanh(g)",
        "h' = s(o) tanh(c')",
    )
    for number, equation in enumerate(equations):
        drawing.text(224, 212 + 20 * number, equation, "code", "start")
    drawing.text(middle, 308, "at every tick (s: sigmoid)", "quiet")

    # The units, with what they take the mean of.
    drawing.labelled(34, 125, 62, 170, "unit", "a")
    drawing.labelled(604, 125, 62, 170, "unit", "b")

    # Forward messages come from the left and go on to the right.
    drawing.across(4, 34, forward_y, "forward")
    draw_message(drawing, 96, 205, forward_y, "m_fwd[a]")
    draw_message(drawing, 495, 604, forward_y, "W_f h' + b_f")
    drawing.across(666, 696, forward_y, "forward")

    # Backward messages come from the right and go on to the left.
    drawing.across(696, 666, backward_y, "backward")
    draw_message(drawing, 604, 495, backward_y, "m_bwd[b]")
    draw_message(drawing, 205, 96, backward_y, "W_b h' + b_b")
    drawing.across(34, 4, backward_y, "backward")

    # What comes from the other synapses of either unit.
    for x in (628, 642):
        drawing.arrow([(x, 88), (x, 125)], "faint")
    drawing.text(616, 106, "other synapses", "quiet", "end")
    drawing.lines(598, 46, ("unit b sends the mean", "over all input units a"), "quiet", 16)
    for x in (58, 72):
        drawing.arrow([(x, 332), (x, 295)], "faint")
    drawing.text(84, 324, "other synapses", "quiet", "start")
    drawing.lines(102, 350, ("unit a sends the mean", "over all output units b"), "quiet", 16)
    return drawing


def draw_two_loops() -> Drawing:
    """Draw the outer loop, that improves the meta-parameters, and the inner loop of one trial."""
    drawing = Drawing(700, 486, "The outer loop finds meta-parameters; the inner loop is an episode")
    drawing.box(14, 14, 672, 250, "panel")
    drawing.text(28, 38, "outer loop: one meta step improves θ once", "title", "start")

    middle = 162
    drawing.labelled(30, middle - 44, 128, 88, "ask", "θ + σε and θ - σε,", "or θ itself")
    drawing.across(158, 196, middle)

    # Trials are dealt to the ranks.
    for rank in range(3):
        y = 86 + 54 * rank
        drawing.box(196, y, 188, 46)
        drawing.text(206, y + 28, f"rank {rank}", "quiet", "start")
        for trial in range(3):
            x = 252 + 42 * trial
            drawing.box(x, y + 9, 36, 28, "inner", 5)
            drawing.text(x + 18, y + 27, "trial", "quiet")
    drawing.across(384, 412, middle)
    drawing.labelled(412, middle - 44, 130, 88, "exchange", "2 floats a member,", "a gradient a chunk")
    drawing.across(542, 570, middle)
    drawing.labelled(570, middle - 44, 104, 88, "tell", "Adam changes", "θ", kind="accent")
    drawing.arrow([(622, middle - 44), (622, 66), (94, 66), (94, middle - 44)])
    drawing.text(500, 59, "the next meta step", "quiet")

    # The inner loop, which is one of the trials seen closer.
    drawing.line([(294, 231), (14, 292)], "faint dashed")
    drawing.line([(330, 231), (686, 292)], "faint dashed")
    drawing.box(14, 292, 672, 180, "panel")
    drawing.text(28, 316, "inner loop: an episode of T steps, θ is fixed", "title", "start")
    boxes = (
        (30, "example", ("x of step t",), ""),
        (197, "answer", ("a sweep forward:", "logits or values"), ""),
        (364, "feedback", ("error e, and the", "label if it is fed"), ""),
        (531, "state changes", ("in every synapse:", "this is learning"), "inner"),
    )
    for x, name, lines, kind in boxes:
        drawing.labelled(x, 334, 140, 78, name, *lines, kind=kind)
    for x, _, _, _ in boxes[:-1]:
        drawing.across(x + 140, x + 167, 373, "forward")
    drawing.arrow([(601, 412), (601, 454), (100, 454), (100, 412)], "forward")
    drawing.text(350, 447, "the next example, t + 1", "quiet")
    return drawing


ABOUT = {
    "vsml": "what users import",
    "launch": "command lines and jobs",
    "vsml.report": "scripts and doors for users",
    "vsml.calls": "what a run can do",
    "vsml.evaluation": "score, look inside, cost, laws",
    "vsml.setup": "configuration to parts, once",
    "vsml.runs": "files, tables, figures of a run",
    "vsml.config": "settings, files, arrays",
    "vsml.search": "draw, judge and keep rules",
    "vsml.meta": "objectives and optimizers",
    "vsml.battery": "tests of what can be learned",
    "vsml.learners": "learning algorithms",
    "vsml.networks": "synapses; data; local rules",
    "vsml.graphs": "nodes and edges as data",
    "vsml.types": "ground: types, devices, files",
}
"""A few words about a row of the house, by one of its rooms."""

FLOW = (
    ("vsml.config", "configuration"),
    ("vsml.setup", "Setup"),
    ("vsml.tasks", "episode"),
    ("vsml.learners", "answers"),
    ("vsml.losses", "loss"),
    ("vsml.meta", "optimizer"),
    ("vsml.runs", "files of a run"),
)
"""The way of the data through a run: a room, and what it makes."""


def read_rooms(path: Path = ROOT / "tests" / "test_layout.py") -> list[list[str]]:
    """Return the rows of the house, from the top to the ground, as the layout test lists them.

    Args:
        path: the test, whose list ROOMS is read and not run, so that names stay in their order.

    Raises:
        ValueError: there is no such list.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            assert isinstance(node.value, ast.List)
            return [[ast.literal_eval(name) for name in row.elts] for row in node.value.elts]  # type: ignore[attr-defined]
    raise ValueError(f"{path}: got no list ROOMS, expected the rows of the layout")


def about_row(row: Sequence[str]) -> str:
    """Return a few words about a row of the house.

    Raises:
        ValueError: ABOUT has none of its rooms.
    """
    for name in row:
        if name in ABOUT:
            return ABOUT[name]
    raise ValueError(f"ABOUT: got nothing about {', '.join(row)}, expected a few words about one of them")


def short_names(row: Sequence[str]) -> list[str]:
    """Return the rooms of a row as they are drawn: parts of one room that has a row of its own are one."""
    shown = []
    for name in row:
        room, _, part = name.removeprefix("vsml.").partition(".")
        shown.append(
            f"{room}.*" if part and part != "__main__" and len(row) > 4 else name.removeprefix("vsml.")
        )
    return list(dict.fromkeys(shown))


def draw_house() -> Drawing:
    """Draw who may import whom, as floors of a house, and the way of the data through them."""
    rooms = read_rooms()
    top, floor_height = 52, 46
    drawing = Drawing(800, top + floor_height * len(rooms) + 12, "The rooms of vsml, and the data flow")
    drawing.text(24, 33, "rooms: imports point downwards", "title", "start")
    drawing.text(430, 33, "the data flow of meta-training", "title", "start")

    middles: dict[str, float] = {}
    for number, row in enumerate(rooms):
        y: float = top + floor_height * number
        drawing.box(14, y, 772, floor_height - 6, "panel", 5)
        names = "  ".join(short_names(row))
        about = about_row(row)
        drawing.text(26, y + 17, names, "code", "start")
        drawing.text(26, y + 33, about, "quiet", "start")
        middles.update(dict.fromkeys(row, y + floor_height / 2 - 3))

    # One column for each step of the flow; a step stands on the floor of its room.
    half = 50
    places = [(306 + 70 * column, middles[room]) for column, (room, _) in enumerate(FLOW)]
    for (x, y), (_, what) in zip(places, FLOW, strict=True):
        drawing.box(x - half, y - 14, 2 * half, 28, "inner", 5)
        drawing.text(x, y + 5, what)
    for (x, y), (next_x, next_y) in pairwise(places):
        side = 14 if next_y < y else -14
        drawing.arrow([(x + half, y), (next_x, y), (next_x, next_y + side)], "forward")

    # What the optimizer gives back: the learner of the next meta step has it.
    (learner_x, learner_y), (optimizer_x, optimizer_y) = places[3], places[5]
    corner = (learner_x, optimizer_y)
    drawing.arrow([(optimizer_x - half, optimizer_y), corner, (learner_x, learner_y - 14)], "backward")
    drawing.text((learner_x + optimizer_x - half) / 2, optimizer_y - 7, "θ")
    drawing.lines(optimizer_x + 10, learner_y + 2, ("a few floats", "a member"), "quiet", 15, "start")
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "synapse": draw_synapse,
    "two_loops": draw_two_loops,
    "house": draw_house,
}
"""What draws docs/NAME.svg."""


def main() -> None:
    """Write all drawings."""
    parser = argparse.ArgumentParser(description="Draw the diagrams of the documentation.")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the files")
    options = parser.parse_args()
    for name, draw in DRAWINGS.items():
        path = options.output / f"{name}.svg"
        path.write_text(draw().svg(), encoding="utf-8")
        print(f"{path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
