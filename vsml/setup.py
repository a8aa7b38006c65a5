"""The setup of a run: the parts that a configuration describes, each derived once."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np

from vsml.config.files import ConfigError
from vsml.config.model import ModelSettings
from vsml.config.preprocess import Pad
from vsml.config.schema import Config
from vsml.config.specs import TaskSpec
from vsml.learners import Learner, make_learner
from vsml.learners.vsml import VsmlConfig
from vsml.meta.chunk_size import choose_chunk_size, memory_of_trial
from vsml.meta.mapping import replicate
from vsml.meta.objectives import EpisodeShape, HasTasks, Objective, build_objective
from vsml.meta.optimizers import OPTIMIZERS, MetaOptimizer, build_optimizer
from vsml.meta.trials import (
    Chunk,
    Group,
    chunks_of,
    group_each,
    group_trials,
    group_without_tasks,
    params_shapes,
)
from vsml.networks.kernels import Kernel, chosen
from vsml.options import SettingsError, build_plugin
from vsml.runs.callbacks import CALLBACKS, Callback
from vsml.runs.directory import RunDirectory
from vsml.system.comm import Communicator
from vsml.system.devices import local_rank
from vsml.tasks import Dataset, Generator, MissingDataError, TaskDistribution, build_task, load, specs
from vsml.types import Array, Outputs, Params

Source = Dataset | Generator

_NO_PAD = Pad()


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """What a learner is evaluated on.

    Attributes:
        name: unique.
        task: draws its episodes.
        number: its place among the tasks of an evaluation.
    """

    name: str
    task: TaskDistribution
    number: int = 0


@dataclass(frozen=True)
class TaskShape:
    """A kind of task, by what is known of it before its data are loaded.

    Attributes:
        spec: the kind of task.
        input_shape: shape of one input.
        outputs: what is to be answered.
    """

    spec: TaskSpec
    input_shape: tuple[int, ...]
    outputs: Outputs

    @classmethod
    def of(cls, spec: TaskSpec, subset: str) -> "TaskShape":
        """Look up the shapes of a kind of task; of data sets only a user's npz is read.

        Args:
            spec: the kind of task.
            subset: "train" or "test", whose examples are drawn.

        Raises:
            ValueError: the data set is unknown, or inputs are larger than what they are to be padded to.
        """
        return cls(spec, *specs.task_shapes(spec, subset))

    @property
    def num_classes(self) -> int:
        """Size of the outputs."""
        return self.outputs.size

    @property
    def episode_length(self) -> int:
        """Steps of an episode."""
        return self.spec.episode_length


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run is made of. No data are loaded and no device is touched before a part is asked for.

    Attributes:
        config: what the user asks for.
    """

    config: Config

    @property
    def model(self) -> ModelSettings:
        """Settings of the learner."""
        return self.config.model

    @property
    def key(self) -> Array:
        """The key that all randomness of training follows from."""
        return jax.random.key(self.config.seed)

    @property
    def restores(self) -> bool:
        """Whether the run goes on from meta-parameters of a file."""
        return self.config.checkpoint.restore is not None

    # The learner.

    def make_learner(self, input_shape: Sequence[int], outputs: Outputs | int) -> Learner:
        """Build the configured learner."""
        return make_learner(self.model.type, self.model.settings, tuple(input_shape), outputs)

    def learner_for(self, task: TaskDistribution | TaskShape) -> Learner:
        """Build the configured learner for the shapes of a task."""
        return self.make_learner(task.input_shape, task.outputs)

    def fresh_params(self, learner: Learner) -> Params:
        """Draw the meta-parameters that training starts from."""
        return learner.init_params(jax.random.fold_in(self.key, 0))

    def check_optimizer(self) -> None:
        """Build the meta-optimizer for meta-parameters of the right shapes, none of which is drawn.

        Raises:
            ConfigError: as `optimizer` has it.
        """
        shapes = params_shapes(self.learner)
        self.optimizer(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))

    # Meta-training.

    @functools.cached_property
    def groups(self) -> list[Group]:
        """Trials by the shapes of their episodes; their tasks are `TaskShape`s, without data.

        Raises:
            ConfigError: the learners of two shapes do not share meta-parameters.
        """
        trials = self.config.training.population_size
        if isinstance(self.objective, HasTasks):
            with config_mistakes():
                return group_each(self.objective.tasks, trials, self.make_learner)
        shape = self.objective.learner_shape
        if shape is not None:
            return [group_without_tasks(self.make_learner(*shape), trials)]
        training_specs = self.config.training_specs
        with config_mistakes():
            shapes = {spec: TaskShape.of(spec, "train") for spec in dict.fromkeys(training_specs)}
            mixture = [shapes[spec] for spec in training_specs]
            return group_trials(mixture, trials, self.make_learner)

    def load_groups(self, comm: Communicator) -> list[Group]:
        """Return the groups with their data, each data set of which is loaded once."""
        return self.groups_with(self.load_training_data(comm))

    def groups_with(self, sources: dict[str, Source]) -> list[Group]:
        """Return the groups with data that are there.

        Args:
            sources: data sets by name.
        """
        if isinstance(self.objective, HasTasks):
            return self.groups
        kinds = {shape.spec for group in self.groups for shape in group.tasks}
        tasks = {spec: self._training_task(spec, sources[spec.dataset]) for spec in kinds}
        groups = []
        for group in self.groups:
            own = tuple(tasks[shape.spec] for shape in group.tasks)
            groups.append(dataclasses.replace(group, tasks=own))
        return groups

    def load_training_data(self, comm: Communicator) -> dict[str, Source]:
        """Load the data sets that meta-training draws from, by name."""
        data = self.config.data
        if isinstance(self.objective, HasTasks):
            return {}
        names = sorted({shape.spec.dataset for group in self.groups for shape in group.tasks})

        def load_all() -> dict[str, Source]:
            return {name: replicate(load(name, "train", data.root, data.verify)) for name in names}

        return _load_locally_first(load_all, comm)

    @property
    def learner(self) -> Learner:
        """The learner of the first group; all groups share its meta-parameters."""
        return self.groups[0].learner

    @functools.cached_property
    def objective(self) -> Objective:
        """What meta-training minimises."""
        with config_mistakes():
            return build_objective(*self.config.objective_settings)

    def optimizer(self, params: Params) -> MetaOptimizer:
        """Build the meta-optimizer for meta-parameters like the given ones.

        Raises:
            ConfigError: there are none, or the optimizer refuses its settings.
        """
        if not jax.tree.leaves(params):
            got = f"model.type: got {self.model.type}, which has no meta-parameters, with call: train"
            raise ConfigError([f"{got}; expected call: evaluate"])
        training = self.config.training
        with config_mistakes():
            return build_optimizer(
                self.config.optimizer,
                self.objective,
                params,
                training.population_size,
                training.iterations,
            )

    @property
    def members(self) -> int:
        """Members of a trial."""
        return self._optimizer_kind.trial_members

    @property
    def differentiates(self) -> bool:
        """Whether the loss of a trial is differentiated by back-propagation."""
        return self._optimizer_kind.differentiates

    @property
    def _optimizer_kind(self) -> Any:
        return OPTIMIZERS.resolve(self.config.optimizer.type)

    def chunk_size(self, ranks: int) -> int:
        """Return the trials of a chunk: as configured, else what suits the machine and the ranks.

        Raises:
            ConfigError: there would be more ranks than chunks.
        """
        with config_mistakes():
            return choose_chunk_size(self.groups, ranks, self._trial_bytes, self.config.training.chunk_size)

    def working_bytes(self, ranks: int) -> int:
        """Estimate the memory that the trials of this process take at a time, on all its devices.

        A CPU takes the trials of a chunk one after the other on each of its cores, an accelerator side by
        side.

        Args:
            ranks: number of MPI ranks.
        """
        devices = jax.local_device_count()
        at_once = devices if jax.default_backend() == "cpu" else self.chunk_size(ranks)
        return max(min(at_once, len(group.trials)) * self._trial_bytes(group) for group in self.groups)

    def _trial_bytes(self, group: Group) -> int:
        """Estimate the memory that a trial of a group takes."""
        shape = None
        if self.objective.learner_shape is None:
            shape = EpisodeShape(
                steps=max(spec.episode_length for spec in self.config.training_specs),
                batch_size=self.config.training.batch_size,
                projected=any(each.spec.preprocess.rand_proj for each in group.tasks),
            )
        return memory_of_trial(self.objective, group.learner, shape, self.members, self.differentiates)

    def chunks(self, groups: Sequence[Group], comm: Communicator) -> list[Chunk]:
        """Cut groups into chunks of a size that all ranks agree on."""
        mine = np.array(self.chunk_size(comm.size))
        return chunks_of(groups, int(comm.allgather(mine).min()))

    def with_chunk_size(self, size: int) -> "Setup":
        """Return the setup whose configuration says how many trials a chunk has."""
        training = self.config.training.model_copy(update={"chunk_size": size})
        return Setup(self.config.model_copy(update={"training": training}))

    def callbacks(self, run: RunDirectory) -> list[Callback]:
        """Build what is told of the events of training."""
        return [build_plugin(CALLBACKS, plugin, run) for plugin in self.config.training.callbacks]

    # Evaluation.

    def evaluation_tasks(self, sources: dict[str, Source], pad: Pad = _NO_PAD) -> list[EvaluationTask]:
        """Build the tasks to evaluate on, as far as their data are there.

        Args:
            sources: data sets by name.
            pad: what of their padding differs.
        """
        tasks = []
        for number, spec in enumerate(self.config.evaluation_specs):
            if spec.task.dataset in sources:
                source = sources[spec.task.dataset]
                batch_size = self.config.evaluation.batch_size
                task = _task(spec.task.padded(pad), source, batch_size=batch_size, replacement=False)
                tasks.append(EvaluationTask(spec.name, task, number))
        return tasks

    def evaluation_shapes(self) -> list[tuple[str, TaskShape]]:
        """Return the names and the shapes of all tasks to evaluate on."""
        subset = self.config.evaluation.subset
        return [(spec.name, TaskShape.of(spec.task, subset)) for spec in self.config.evaluation_specs]

    def check_evaluation(self, shapes: Iterable[tuple[str, TaskDistribution | TaskShape]]) -> None:
        """Check that what is meta-trained can be evaluated.

        Args:
            shapes: names and shapes of what it is evaluated on.

        Raises:
            ConfigError: its meta-parameters depend on the shapes, and these differ; or it fits one of them
                not at all.
        """
        trained = params_shapes(self.learner)
        params_of = functools.cache(lambda *shape: params_shapes(self.make_learner(*shape)))
        mistakes = []
        with config_mistakes():
            for name, shape in shapes:
                if params_of(shape.input_shape, shape.outputs) != trained:
                    mistakes.append(
                        f"evaluation.datasets: {name}: {self.model.type} has other meta-parameters for "
                        f"inputs {shape.input_shape} with {shape.num_classes} classes than for "
                        f"{self.learner.input_shape} with {self.learner.num_classes}, as in meta-training; "
                        "pad both to one shape (data.preprocess.pad, configs/pad.yaml)"
                    )
        if mistakes:
            raise ConfigError(mistakes)

    def load_evaluation_data(
        self, comm: Communicator, subset: str | None = None
    ) -> tuple[dict[str, Source], list[str]]:
        """Load the data sets to evaluate on.

        Args:
            comm: the ranks.
            subset: "train" or "test"; None: `evaluation.subset`.

        Returns:
            The data sets by name, and why optional ones are left out.
        """
        data = self.config.data
        half = subset or self.config.evaluation.subset
        required: dict[str, bool] = {}
        for spec in self.config.evaluation_specs:
            name = spec.task.dataset
            required[name] = required.get(name, False) or not spec.optional

        def load_all() -> tuple[dict[str, Source], list[str]]:
            sources, missing = {}, []
            for name, needed in required.items():
                try:
                    sources[name] = replicate(load(name, half, data.root, data.verify, download=needed))
                except MissingDataError as error:
                    if needed:
                        raise
                    missing.append(str(error))
            return sources, missing

        sources, missing = _load_locally_first(load_all, comm)
        # What one machine lacks, no rank evaluates on: else they would wait for each other.
        for name in required:
            if comm.any(name not in sources) and sources.pop(name, None) is not None:
                missing.append(f"{name}: its files are missing on another machine")
        return sources, missing

    # The machine.

    @property
    def kernel(self) -> Kernel | None:
        """What synapses of dense layers tick by on this machine; None for a learner without synapses."""
        vsml = self.model.settings
        if not isinstance(vsml, VsmlConfig):
            return None
        synapse = vsml.synapse
        normed_channels = synapse.message_size if synapse.layer_norm else 0
        return chosen(vsml.kernel, synapse.state_size, normed_channels, vsml.product_dtype)

    def check_same_kernel(self, comm: Communicator) -> None:
        """Check that synapses tick by the same kernel on all ranks, as results differ by its rounding.

        Raises:
            ConfigError: they would not; on all ranks.
        """
        vsml = self.model.settings
        if comm.size == 1 or not isinstance(vsml, VsmlConfig):
            return
        kernel = self.kernel
        names = get_args(Kernel)
        used = comm.allgather(np.array(names.index(kernel))).tolist()
        if len(set(used)) > 1:
            counts = "; ".join(
                f"{names[each]} on {used.count(each)} of the ranks" for each in sorted(set(used))
            )
            mistake = (
                f"model.vsml.kernel: got {vsml.kernel!r}, which is {counts} (a warning there says why); "
                "expected the same on all: mend it there, or set model.vsml.kernel=tiled"
            )
            raise ConfigError([mistake])

    # Parts of the above.

    def _training_task(self, spec: TaskSpec, source: Source) -> TaskDistribution:
        return _task(
            spec,
            source,
            batch_size=self.config.training.batch_size,
            num_tasks=self.config.data.num_tasks,
            task_seed=self.config.seed,
        )


@contextlib.contextmanager
def config_mistakes() -> Iterator[None]:
    """Report as a mistake of the configuration what a part that is built from it refuses."""
    try:
        yield
    except ConfigError:
        raise
    except SettingsError as error:
        raise ConfigError(error.mistakes) from error
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _load_locally_first(load_all: Callable[[], Any], comm: Communicator) -> Any:
    """Let one rank of each machine load, and perhaps download, before the others do."""
    first = local_rank() == 0
    loaded = load_all() if first else None
    comm.barrier()
    return loaded if first else load_all()


def _task(spec: TaskSpec, source: Source, **settings: Any) -> TaskDistribution:
    """Build the distribution of episodes of a kind of task."""
    few_shot = {} if spec.few_shot is None else spec.few_shot.model_dump()
    with config_mistakes():
        return build_task(
            source,
            spec.episode_length,
            filter_classes=spec.filter_classes,
            **spec.preprocess.model_dump(),
            **few_shot,
            **settings,
        )
