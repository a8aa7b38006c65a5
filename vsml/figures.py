"""The paper's figures, one command each, at the scale of a small machine.

    python -m vsml.figures fig4 [fig6 fig7 fig8 introspection] [--output DIR] [--runs RUN ...]

Each makes its runs in DIR, goes on with those that are there already, and draws DIR/NAME.png. `--list` shows
which runs a figure needs, and what makes it at the paper's scale; `--runs` draws from runs that exist.
"""

import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vsml.registry import suggestion
from vsml.reporting import plots
from vsml.reporting.intervals import ends
from vsml.runs.directory import RunDirectory, open_run
from vsml.runs.reading import is_meta_trained, read_evaluation, result_file
from vsml.runs.result_files import read_arrays
from vsml.system.arguments import ArgumentParser
from vsml.system.extras import MissingExtraError
from vsml.system.program import run_command, run_program
from vsml.system.terminal import say

ROOT = Path(__file__).parents[1]
"""The folder of the checkout, or of the installed packages."""


@dataclass(frozen=True)
class PaperFigure:
    """A figure of Kirsch & Schmidhuber (2021).

    Attributes:
        shows: what, in a few words.
        runs: arguments of launch.py for each run that it needs.
        full: commands for the scale of the paper.
        draw: draws it to a path from complete runs.
    """

    shows: str
    runs: tuple[str, ...]
    full: tuple[str, ...]
    draw: Callable[[Path, Sequence[RunDirectory]], None]


def _check_rows(rows: Sequence[dict[str, Any]], runs: Sequence[RunDirectory]) -> None:
    """Refuse runs that have nothing to show, or two numbers for one place."""
    where = ", ".join(str(run.path) for run in runs)
    if not rows:
        raise ValueError(
            f"{where}: got no evaluation that can be shown, expected learners that were evaluated"
        )
    for row in rows:
        if row.get("accuracy_last") is None:
            raise ValueError(f"{where}: got {row['learner']} on {row['dataset']} without an accuracy")
    counts = Counter((row["learner"], row["dataset"]) for row in rows)
    if twice := [" on ".join(pair) for pair, count in counts.items() if count > 1]:
        raise ValueError(f"{where}: got {', '.join(twice)} more than once, expected names of their own")


def draw_clones(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Draw the losses of networks of clones and of back-propagation, a row for each run."""
    trajectories = [read_arrays(result_file(run, "trajectories.npz")) for run in runs]
    # A data set may have "/" in its name, as a path has.
    datasets = list(dict.fromkeys(key.rpartition("/")[0] for arrays in trajectories for key in arrays))
    figure, panels = plots.panels(len(runs), len(datasets), width=5.5, height=3.2)
    for row, (run, arrays) in enumerate(zip(runs, trajectories, strict=True)):
        for column, dataset in enumerate(datasets):
            axes = panels[row * len(datasets) + column]
            if f"{dataset}/loss" not in arrays:
                axes.set_visible(False)
                continue
            seen, layers = arrays[f"{dataset}/examples"], arrays[f"{dataset}/cosine"].shape[1]
            tested = arrays[f"{dataset}/test_accuracy"]
            styles = (("clone", "solid", 3.0), ("back-propagation", "dotted", 1.5))
            for number, (name, style, width) in enumerate(styles):
                label = f"{name}: {tested[number]:.1%} of test images"
                colour = plots.COLOURS[number]
                loss = arrays[f"{dataset}/loss"][number]
                axes.plot(seen, loss, linestyle=style, lw=width, color=colour, label=label)
            axes.legend(frameon=False, fontsize=9)
            kind = "one layer" if layers == 1 else f"{layers} layers"
            plots.label(axes, f"{dataset}, {kind} ({run.path.name})", "examples, one pass", "loss (nats)")
    plots.save(figure, path)


def draw_curves(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Take the learning curves that a run has drawn."""
    _take(path, runs, "learning_curves.png")


def draw_answers(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Take what a run of `call: introspect` has drawn of learners' answers."""
    _take(path, runs, "answers_*.png")


def _take(path: Path, runs: Sequence[RunDirectory], pattern: str) -> None:
    found = [drawn for run in runs for drawn in sorted(run.path.glob(pattern))]
    if not found:
        raise ValueError(f"{runs[0].path}: has no {pattern}; expected a run as --list says")
    if len(found) > 1:
        raise ValueError(f"got {', '.join(map(str, found))}, expected one figure: a run of one data set")
    shutil.copyfile(found[0], path)


def draw_bars(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Draw the last accuracy of each learner under each condition, with 95 % intervals."""
    rows = [row for run in runs for row in read_evaluation(run)]
    _check_rows(rows, runs)
    conditions = list(dict.fromkeys(row["dataset"] for row in rows))
    learners = list(dict.fromkeys(row["learner"] for row in rows))
    figure, (axes,) = plots.panels(1, 1, width=2.0 + 1.3 * len(conditions), height=4.0)
    width = 0.8 / len(learners)
    for number, learner in enumerate(learners):
        mine = {row["dataset"]: row for row in rows if row["learner"] == learner}
        at = [place for place, condition in enumerate(conditions) if condition in mine]
        heights = np.array([mine[conditions[place]]["accuracy_last"] for place in at])
        half_widths = [mine[conditions[place]]["interval_95"]["accuracy_last"] or 0.0 for place in at]
        intervals = [ends(*each, most=1.0) for each in zip(heights, half_widths, strict=True)]
        low, high = np.array(intervals).T
        errors = [heights - low, high - heights]
        places = np.array(at) + (number - (len(learners) - 1) / 2) * width
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        axes.bar(places, heights, width, yerr=errors, color=colour, label=learner)
    axes.set_xticks(np.arange(len(conditions)), conditions)
    axes.set_ylim(0, 1)
    axes.legend(
        frameon=False, fontsize=9, ncols=len(learners), loc="lower center", bbox_to_anchor=(0.5, 1.06)
    )
    plots.label(axes, "", "", "accuracy on the last fifth")
    plots.save(figure, path)


def draw_matrix(path: Path, runs: Sequence[RunDirectory]) -> None:
    """Draw the last accuracy of each learner on each data set as a matrix.

    With several runs a learner goes by the name of its run: what it was meta-trained on.
    """
    rows = [
        {**row, "learner": run.path.name if len(runs) > 1 else row["learner"]}
        for run in runs
        for row in read_evaluation(run)
        if len(runs) == 1 or is_meta_trained(row)
    ]
    _check_rows(rows, runs)
    learners, datasets = (list(dict.fromkeys(row[name] for row in rows)) for name in ("learner", "dataset"))
    matrix = np.full((len(learners), len(datasets)), np.nan)
    for row in rows:
        place = learners.index(row["learner"]), datasets.index(row["dataset"])
        matrix[place] = row["accuracy_last"]
    figure, (axes,) = plots.panels(1, 1, width=3.0 + 1.1 * len(datasets), height=1.2 + 0.5 * len(learners))
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "black" if value > 0.6 else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(np.arange(len(datasets)), datasets)
    axes.set_yticks(np.arange(len(learners)), learners)
    figure.colorbar(image, ax=axes, label="accuracy on the last fifth")
    plots.label(axes, "", "meta-test", "")
    plots.save(figure, path)


FIGURES = {
    "fig4": PaperFigure(
        "back-propagation, cloned: a network of clones beside the same network under back-propagation",
        ("--config_files configs/clone.yaml", "--config_files configs/clone.yaml configs/clone_deep.yaml"),
        ("python -m vsml.figures fig4",),
        draw_clones,
    ),
    "fig6": PaperFigure(
        "learning curves of learning algorithms, baselines and gradient descent",
        ("--config_files configs/figures/fig6.yaml",),
        (
            "python launch.py --config_files configs/rand_proj.yaml",
            "python launch.py --config_files configs/compare.yaml --config checkpoint.restore=RUN",
        ),
        draw_curves,
    ),
    "fig7": PaperFigure(
        "other classes, sizes of images, projections and shuffles of pixels",
        ("--config_files configs/figures/fig7.yaml",),
        ("python launch.py --config_files configs/invariances.yaml",),
        draw_bars,
    ),
    "fig8": PaperFigure(
        "what was meta-trained on what, and what it learns",
        ("--config_files configs/figures/fig8.yaml",),
        (
            "python launch.py --array configs/array/datasets.yaml --config_files configs/rand_proj.yaml "
            "--array_index 1    (to 11)",
        ),
        draw_matrix,
    ),
    "introspection": PaperFigure(
        "what learning algorithms do in the middle of an episode",
        ("--config_files configs/introspect.yaml",),
        ("python launch.py --config_files configs/introspect.yaml --config evaluation.learners=[...]",),
        draw_answers,
    ),
}


def make(name: str, output: Path, runs: Sequence[str | Path] = ()) -> Path:
    """Make a figure.

    Args:
        name: one of `FIGURES`.
        output: folder of the figure, and of the runs that it needs.
        runs: complete runs to draw from instead.

    Returns:
        The path of the figure.

    Raises:
        ValueError: a folder is none of a complete run of the kind that the figure needs.
        subprocess.CalledProcessError: a run failed; it has said why.
    """
    wanted = FIGURES[name]
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.png"
    found = [open_run(run) for run in runs]
    for arguments in () if runs else wanted.runs:
        words = shlex.split(arguments)
        folder = output / ("-".join(Path(word).stem for word in words if word.endswith(".yaml")))
        command = [*run_program(), *words, "--run_dir", str(folder), "--continue"]
        subprocess.run(command, check=True)
        found.append(open_run(folder))
    for run in found:
        if not run.complete.exists():
            raise ValueError(f"{run.path}: is not complete; expected one that is")
    try:
        wanted.draw(path, found)
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: is missing; expected a run as --list says") from error
    return path


def describe() -> str:
    """Say which figures there are, which runs they need, and what makes them at the paper's scale."""
    lines = []
    for name, figure in FIGURES.items():
        lines += [f"{name}: {figure.shows}", *(f"    {run_command()} {run}" for run in figure.runs)]
        lines += ["  at the paper's scale:", *(f"    {command}" for command in figure.full)]
    return "\n".join(lines)


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(prog="python -m vsml.figures", description="The paper's figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of a figure: {', '.join(FIGURES)}")
    parser.add_argument("--output", type=Path, default=Path("runs/figures"), metavar="DIR")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="draw from these runs")
    parser.add_argument("--list", action="store_true", help="say what each figure needs, and end")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser()
    options = parser.parse_args(arguments)
    if options.list:
        print(describe())
        return
    if unknown := [name for name in options.names if name not in FIGURES]:
        meant = suggestion(unknown[0], FIGURES)
        parser.error(f"NAME: got {', '.join(unknown)}, expected some of {', '.join(FIGURES)}{meant}")
    if not options.names:
        parser.error(f"NAME: expected some of {', '.join(FIGURES)}")
    if options.runs and len(options.names) > 1:
        parser.error(f"--runs: got {len(options.names)} figures, expected one to draw from these runs")
    for name in options.names:
        try:
            say(str(make(name, options.output, options.runs)))
        except (ValueError, OSError, MissingExtraError) as error:
            sys.exit(f"error: {error}")
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode)


if __name__ == "__main__":
    main()
