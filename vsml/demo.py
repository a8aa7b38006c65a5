"""A demonstration: a learning algorithm that comes with the library learns what it has never seen.

    python -m vsml.demo          (`make demo`)

Nothing that starts JAX is imported before `prepare` has been called.
"""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.system.arguments import ArgumentParser
from vsml.system.devices import prepare
from vsml.system.extras import MissingExtraError, check_extra

if TYPE_CHECKING:
    from vsml.calls.evaluate import Evaluation
    from vsml.learners import Learner
    from vsml.reporting.plots import Curve
    from vsml.tasks import TaskDistribution
    from vsml.types import Array, Episode, Params

DIGITS_TITLE = "digits, held out (8x8)"
IMAGE_SETS = {"mnist": "MNIST (14x14)", "fashion_mnist": "Fashion-MNIST (14x14)", "kmnist": "KMNIST (14x14)"}
"""What is learned besides digits, where its files are there already."""

HELD_OUT_DIGITS = 497

ADAM_LEARNING_RATE = 0.01
"""Of the baseline of one layer: the best of six on MNIST, Fashion-MNIST and projected MNIST for 100 examples,
docs/results/paper.md."""

BUFFER = 128
"""Examples that kernel ridge regression keeps, the latest: what one would use without any meta-training."""

_WHAT = (
    "The learning algorithm '{algorithm}' is shown one image after the other. It answers, is then told the "
    "label, and so learns: by running forward alone, without any gradient."
)
_WIDEST = 100  # columns, where the terminal has more
_INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(prog="python -m vsml.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--algorithm", default="general", help="name or file, as for vsml.load_learner")
    parser.add_argument("--episodes", type=_positive, default=16, help="fresh starts to average over")
    parser.add_argument("--examples", type=_positive, default=HELD_OUT_DIGITS, help="length of an episode")
    parser.add_argument("--picture", type=Path, default=Path("runs", "demo.png"), help="file to draw into")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Let the algorithm learn, draw its curves as text and as a picture, and return the exit status."""
    parser = command_parser()
    options = parser.parse_args(arguments)
    if options.examples > HELD_OUT_DIGITS:
        parser.error(f"--examples: got {options.examples}, expected at most {HELD_OUT_DIGITS}")
    prepare()
    try:
        check_extra("train", "demonstrations")
        _demonstrate(options.algorithm, options.episodes, options.examples, options.picture)
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (FileNotFoundError, ValueError) as error:  # no such algorithm, or none that fits; damaged data
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # as in `make demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _demonstrate(algorithm: str, episodes: int, examples: int, picture: Path) -> None:
    from vsml.reporting import plots, text_plots

    start = time.monotonic()
    columns = min(_WIDEST, shutil.get_terminal_size().columns)  # 80 where there is no terminal
    print(textwrap.fill(_WHAT.format(algorithm=Path(algorithm).stem), columns), flush=True)
    tasks, missing = _tasks(examples)
    results = _learn(tasks, algorithm, episodes)
    curves = [plots.Curve(each.learner, each.dataset, each.correct, each.chance) for each in results]
    unicode = text_plots.encodable(sys.stdout.encoding)
    print(f"\nAccuracy against images seen, mean of {episodes} fresh starts\n")
    print(text_plots.learning_curves(curves, width=columns, unicode=unicode))
    print(f"\n{_tables(results, columns)}\n")
    if missing:
        absent = f"Not there, and not downloaded (VSML_DATA_DIR, docs/data.md): {', '.join(missing)}."
        print(textwrap.fill(absent, columns))
    _draw(picture, curves)
    print(f"{time.monotonic() - start:.0f} seconds.")


def _tasks(examples: int) -> "tuple[dict[str, TaskDistribution], list[str]]":
    """Return what is learned, by title, and the titles of what is not there."""
    from vsml.tasks import MissingDataError, build_task, load

    tasks = {DIGITS_TITLE: build_task(load("digits", "test"), examples, replacement=False)}
    missing = []
    for name, title in IMAGE_SETS.items():
        try:
            source = load(name, "test", download=False)
        except MissingDataError:
            missing.append(title)
        else:
            tasks[title] = build_task(source, examples, resize=(14, 14), replacement=False)
    return tasks, missing


def _learn(tasks: "Mapping[str, TaskDistribution]", algorithm: str, episodes: int) -> "list[Evaluation]":
    """Let the algorithm and the references go through the same episodes of each task.

    Each learner is compiled once for each shape of input, two at a time.
    """
    import jax

    from vsml.calls.evaluate import Evaluation
    from vsml.evaluation.episodes import price_of

    keys = jax.random.split(jax.random.key(0), episodes)
    draw = jax.jit(lambda task, keys: jax.vmap(task.sample)(keys))
    # The largest first: it takes longest, with the kernel for the CPU that is compiled at its first use.
    first_of_shape = {task.input_shape: task for task in reversed([*tasks.values()])}
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            compiled = {
                (shape, name): (learner, params, pool.submit(_compile, learner, params, task, keys))
                for shape, task in first_of_shape.items()
                for name, (learner, params) in _learners(algorithm, task).items()
            }
            drawn = {title: pool.submit(draw, task, keys) for title, task in tasks.items()}
            results = []
            for title, task in tasks.items():
                episode = drawn[title].result()
                chance = 1 / task.real_classes
                for (shape, name), (learner, params, run) in compiled.items():
                    if shape == task.input_shape:
                        correct, loss = jax.device_get(run.result()(params, episode, keys))
                        price = price_of(learner, task.batch_size)
                        results.append(Evaluation(name, title, chance, correct, loss, price=price))
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def _learners(algorithm: str, task: "TaskDistribution") -> "dict[str, tuple[Learner, Params]]":
    """Return who learns a task, with their meta-parameters."""
    from vsml.learners import KernelRidge, Sgd
    from vsml.learners.kernel_ridge import KernelRidgeConfig
    from vsml.learners.sgd import SgdConfig
    from vsml.pretrained import load_learner

    loaded = load_learner(algorithm, input_shape=task.input_shape, num_classes=task.num_classes)
    settings = SgdConfig(optimizer="adam", learning_rate=ADAM_LEARNING_RATE)
    adam = Sgd(task.input_shape, loaded.learner.outputs, settings)
    ridge = KernelRidge(task.input_shape, loaded.learner.outputs, KernelRidgeConfig(buffer=BUFFER))
    return {
        f"VSML '{Path(algorithm).stem}'": (loaded.learner, loaded.params),
        f"Adam (1 layer, rate {ADAM_LEARNING_RATE})": (adam, {}),
        f"Kernel ridge (last {BUFFER})": (ridge, {}),
    }


def _compile(learner: "Learner", params: "Params", task: "TaskDistribution", keys: "Array") -> Any:
    """Compile what runs a learner from fresh states, one for each key, over episodes of a task's shapes.

    Returns:
        A function of meta-parameters, episodes and keys; it returns which answers were right, and their
        losses in nats, both [episodes, T].
    """
    import jax

    from vsml.learners import run_episode
    from vsml.losses import cross_entropy, right_answers
    from vsml.meta.mapping import map_trials

    def answer(unit: "tuple[Episode, Array]", params: "Params") -> "tuple[Array, Array]":
        episode, key = unit
        logits = run_episode(learner, params, key, episode)
        return right_answers(logits, episode.y).mean(-1), cross_entropy(logits, episode.y).mean(-1)

    def answers(params: "Params", episodes: "Episode", keys: "Array") -> "tuple[Array, Array]":
        return map_trials(answer, (episodes, keys), params)

    shapes = jax.eval_shape(jax.vmap(task.sample), keys)
    return jax.jit(answers).lower(params, shapes, keys).compile()


def _tables(results: "Sequence[Evaluation]", columns: int) -> str:
    """Return the accuracies as text, a table for each learner, with state and cost where they fit."""
    with_price = _tables_of(results, with_price=True)
    narrow = max(map(len, with_price.splitlines())) > columns
    text = _tables_of(results, with_price=False) if narrow else with_price
    chance = ", ".join(sorted({f"{each.chance:.0%}" for each in results}))
    note = f"accuracy: share of right answers in the last fifth of the images up to there; chance: {chance}"
    if not narrow:
        note += "; state: numbers kept between images; cost: of an image"
    return text + "\n" + textwrap.fill(f"({note})", columns)


def _tables_of(results: "Sequence[Evaluation]", with_price: bool) -> str:
    """Return a table for each learner, as text."""
    from vsml.reporting import tables

    headings = ["data set", "at 10", "at 100", "at end"]
    texts = []
    for learner in dict.fromkeys(each.learner for each in results):
        rows = []
        for each in results:
            if each.learner == learner:
                summary = each.summary()
                shown = [summary.get(f"accuracy_{when}") for when in ("at_10", "at_100", "last")]
                accuracies = [tables.DASH if value is None else f"{value:.0%}" for value in shown]
                price = [f"{summary['state']:,}", tables.cost_cell(summary)] if with_price else []
                rows.append([each.dataset, *accuracies, *price])
        columns = [*headings, "state", "cost"] if with_price else headings
        texts.append(tables.plain(tables.Table(columns, rows, learner, left=frozenset(["data set"]))))
    return "\n\n".join(texts)


def _draw(picture: Path, curves: "Sequence[Curve]") -> None:
    """Draw the picture; where it cannot be written, say so."""
    from vsml.reporting import plots

    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        plots.learning_curves(picture, curves)
    except OSError as error:
        print(f"No picture: {error}.")
    else:
        print(f"The same as a picture: {picture}")


if __name__ == "__main__":
    sys.exit(main())
