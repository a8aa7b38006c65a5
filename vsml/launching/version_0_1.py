"""Functions of version 0.1 that took a whole configuration, by their old names; they go with version 0.3.

Each says in one line what is called now. They are found by their old paths (vsml/moved.py).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from vsml.calls.clone import report_clone
from vsml.calls.evaluate import run_evaluation as evaluate_setup
from vsml.calls.introspect import IntrospectConfig
from vsml.calls.introspect import run_introspection as introspect_setup
from vsml.calls.train import run_training as train_setup
from vsml.config.model import ModelSettings
from vsml.config.preprocess import Pad
from vsml.config.schema import Config
from vsml.config.specs import EvaluationSpec, TaskSpec
from vsml.cost import ranks as ranks_of
from vsml.cost.counts import counted_cost
from vsml.evaluation import candidates
from vsml.evaluation.candidates import Candidate
from vsml.evaluation.comparison import Comparison
from vsml.evaluation.episodes import PendingEvaluation
from vsml.evaluation.scores import Evaluation
from vsml.evaluation.stored import StoredParams
from vsml.launching.schema import call_of
from vsml.learners import Learner, make_learner
from vsml.meta.objectives.clone import Draws
from vsml.meta.optimizers import MetaOptimizer
from vsml.meta.trials import Group
from vsml.runs.directory import RunDirectory
from vsml.setup import EvaluationTask, Setup, Source, TaskShape
from vsml.system.comm import Communicator
from vsml.types import Array, Params

NO_PAD = Pad()
GRADIENT_COST = ranks_of.GRADIENT_PASSES


def check_same_kernel(config: Config, comm: Communicator) -> None:
    """Call `Setup.check_same_kernel`."""
    Setup(config).check_same_kernel(comm)


def load_training_data(config: Config, comm: Communicator) -> dict[str, Source]:
    """Return the training data by name; `Setup.load_groups` loads what it needs by itself."""
    return Setup(config).load_training_data(comm)


def load_evaluation_data(config: Config, comm: Communicator) -> tuple[dict[str, Source], list[str]]:
    """Call `Setup.load_evaluation_data`."""
    return Setup(config).load_evaluation_data(comm)


def training_groups(config: Config, sources: dict[str, Source]) -> list[Group]:
    """Call `Setup.groups_with`; `Setup.load_groups` loads the data, too."""
    return Setup(config).groups_with(sources)


def clone_groups(config: Config) -> list[Group]:
    """Return `Setup.groups`."""
    return Setup(config).groups


def evaluation_tasks(config: Config, sources: dict[str, Source], pad: Pad = NO_PAD) -> list[EvaluationTask]:
    """Call `Setup.evaluation_tasks`."""
    return Setup(config).evaluation_tasks(sources, pad)


def learner_maker(model: ModelSettings) -> Callable[[tuple[int, ...], int], Learner]:
    """Return what `Setup.make_learner` is."""
    return lambda shape, outputs: make_learner(model.type, model.settings, shape, outputs)


def check_evaluation(
    config: Config, learner: Learner, shapes: Iterable[tuple[str, tuple[int, ...], int]]
) -> None:
    """Call `Setup.check_evaluation`, which knows the learner and the shapes by itself."""
    del learner, shapes
    setup = Setup(config)
    setup.check_evaluation(setup.evaluation_shapes())


def meta_optimizer(config: Config, params: Params) -> MetaOptimizer:
    """Call `Setup.optimizer`."""
    return Setup(config).optimizer(params)


def clone_draws(config: Config) -> Draws:
    """Return the settings of the objective `clone`."""
    return Draws(**config.clone.model_dump(exclude={"follow"}))


def chunk_size(config: Config, groups: Iterable[Group], ranks: int) -> int:
    """Call `Setup.chunk_size`, which knows the groups by itself."""
    del groups
    return Setup(config).chunk_size(ranks)


def own_contender(
    config: Config, name: str, params_for: Callable[[Learner], Params], tasks: Sequence[EvaluationTask]
) -> Candidate:
    """Call `vsml.evaluation.candidates.own_candidate`."""
    return candidates.own_candidate(Setup(config), name, params_for, tasks)


def untrained_contender(config: Config, tasks: Sequence[EvaluationTask]) -> Candidate:
    """Call `vsml.evaluation.candidates.start_candidate`."""
    return candidates.start_candidate(Setup(config), tasks)


def compared_contenders(config: Config, sources: dict[str, Source], comm: Communicator) -> list[Candidate]:
    """Call `vsml.evaluation.candidates.compared_candidates`."""
    return candidates.compared_candidates(Setup(config), sources, comm)


def restored_params(config: Config, comm: Communicator) -> StoredParams:
    """Call `vsml.evaluation.candidates.restored_params`."""
    return candidates.restored_params(Setup(config), comm)


def initial_key(config: Config) -> Array:
    """Return the key of fresh meta-parameters, which `Setup.fresh_params` draws."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)


def evaluate_all(
    config: Config,
    contenders: Sequence[Candidate],
    comm: Communicator,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Evaluation], list[Evaluation]]:
    """Call `vsml.evaluation.comparison.Comparison.evaluate`."""
    return Comparison(config.evaluation, comm, check).evaluate(contenders)


def dispatch_evaluations(config: Config, contender: Candidate, comm: Communicator) -> list[PendingEvaluation]:
    """Call `vsml.evaluation.comparison.Comparison.dispatch`."""
    return Comparison(config.evaluation, comm).dispatch(contender)


def run_evaluation(config: Config, run: RunDirectory | None, comm: Communicator) -> list[Evaluation] | None:
    """Call `vsml.calls.evaluate.run_evaluation` with a setup."""
    return evaluate_setup(Setup(config), run, comm)


def run_introspection(config: Any, run: RunDirectory | None, comm: Communicator) -> None:
    """Call `vsml.calls.introspect.run_introspection` with a setup and its section."""
    settings: IntrospectConfig = config.introspect
    introspect_setup(Setup(config), settings, run, comm)


def run_training(config: Config, run: RunDirectory | None, comm: Communicator, resume: bool = False) -> bool:
    """Call `vsml.calls.train.run_training` with a setup."""
    return train_setup(Setup(config), run, comm, resume)


def write_proof(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Call `vsml.calls.clone.report_clone`."""
    return report_clone(Setup(config), run)


def describe(config: Config, ranks: int) -> str:
    """Join the lines of `Call.plan`."""
    return "\n".join(call_of(config).plan(Setup(config), ranks))


def task_shapes(spec: TaskSpec, subset: str) -> tuple[tuple[int, ...], int]:
    """Return the shapes of a `vsml.setup.TaskShape`."""
    shape = TaskShape.of(spec, subset)
    return shape.input_shape, shape.num_classes


def step_flops(learner: Learner, batch_size: int) -> float:
    """Add up `vsml.cost.counts.counted_cost`, all arithmetic alike."""
    counted = counted_cost(learner, batch_size)
    return batch_size * (counted.flops + counted.transcendentals)


def work_of(config: Config, ranks: int) -> ranks_of.Work:
    """Call `vsml.cost.ranks.work_of` with a setup."""
    return ranks_of.work_of(Setup(config), ranks)


def training_specs(config: Config) -> tuple[TaskSpec, ...]:
    """Return `Config.training_specs`."""
    return config.training_specs


def evaluation_specs(config: Config) -> tuple[EvaluationSpec, ...]:
    """Return `Config.evaluation_specs`."""
    return config.evaluation_specs


def examples_per_step(config: Config) -> int:
    """Return `Config.examples_per_step`."""
    return config.examples_per_step
