"""Names that this library had before: old import paths work for one version, with a DeprecationWarning.

docs/migrating.md lists them for readers.
"""

import importlib
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

MODULES: dict[str, tuple[str, ...]] = {
    "vsml.build": (
        "vsml.setup",
        "vsml.meta.chunk_size",
        "vsml.meta.objectives.episode",
        "vsml.meta.schedules",
    ),
    "vsml.cache": ("vsml.system.cache",),
    "vsml.checkpoint": ("vsml.runs.checkpoint",),
    "vsml.cloning": ("vsml.calls.clone",),
    "vsml.comm": ("vsml.system.comm",),
    "vsml.command_line": ("vsml.launching.command_line",),
    "vsml.config": (
        "vsml.config.schema",
        "vsml.config.sections",
        "vsml.config.model",
        "vsml.config.specs",
        "vsml.config.checks",
        "vsml.config.preprocess",
        "vsml.meta.schedules",
    ),
    "vsml.config_array": ("vsml.config.array",),
    "vsml.config_files": ("vsml.config.files",),
    "vsml.config_reference": ("vsml.launching.reference",),
    "vsml.config_types": ("vsml.settings",),
    "vsml.console": ("vsml.runs.progress", "vsml.reporting.tables"),
    "vsml.contenders": ("vsml.evaluation.candidates", "vsml.evaluation.stored"),
    "vsml.conv": ("vsml.networks.wirings.conv",),
    "vsml.cost": ("vsml.cost.counts",),
    "vsml.devices": ("vsml.system.devices",),
    "vsml.evaluate": (
        "vsml.evaluation.episodes",
        "vsml.evaluation.results",
        "vsml.evaluation.scores",
        "vsml.calls.evaluate",
    ),
    "vsml.experiments": ("vsml.introspection.experiments",),
    "vsml.files": ("vsml.system.files",),
    "vsml.following": ("vsml.introspection.trajectories",),
    "vsml.introspection": ("vsml.calls.introspect",),
    "vsml.introspection_plots": ("vsml.introspection.plots",),
    "vsml.kernels": ("vsml.networks.kernels",),
    "vsml.kernels.activations": ("vsml.networks.kernels.activations",),
    "vsml.kernels.fused": ("vsml.networks.kernels.fused",),
    "vsml.kernels.native": ("vsml.networks.kernels.native",),
    "vsml.kernels.positions": ("vsml.networks.kernels.positions",),
    "vsml.kernels.reference": ("vsml.networks.kernels.reference",),
    "vsml.kernels.tiled": ("vsml.networks.kernels.tiled",),
    "vsml.layers": ("vsml.networks.wirings.base", "vsml.networks.wirings.dense"),
    "vsml.learners.backprop": ("vsml.networks.written",),
    "vsml.meta": ("vsml.meta.trials",),
    "vsml.meta.antithetic": ("vsml.meta.optimizers.antithetic",),
    "vsml.meta.cloning": ("vsml.meta.objectives.clone",),
    "vsml.meta.evolution": ("vsml.meta.optimizers.evosax",),
    "vsml.meta.gradient": ("vsml.meta.optimizers.gradient",),
    "vsml.meta.objective": (
        "vsml.meta.trials",
        "vsml.meta.mapping",
        "vsml.meta.objectives.episode",
        "vsml.meta.optimizers.base",
    ),
    "vsml.modules": ("vsml.networks.modules",),
    "vsml.network": ("vsml.networks.layered",),
    "vsml.plan": ("vsml.calls.plan",),
    "vsml.plots": ("vsml.reporting.plots",),
    "vsml.roofline": ("vsml.cost.roofline",),
    "vsml.runs": (
        "vsml.runs.directory",
        "vsml.runs.metrics",
        "vsml.runs.environment",
        "vsml.system.files",
    ),
    "vsml.scaling": ("vsml.cost.ranks",),
    "vsml.signals": ("vsml.system.signals",),
    "vsml.standardise": ("vsml.online.standardise",),
    "vsml.submission": ("vsml.launching.submission",),
    "vsml.synapse": ("vsml.networks.cells.lstm",),
    "vsml.tasks.converted": ("vsml.tasks.data.converted",),
    "vsml.tasks.dataset": ("vsml.tasks.data.dataset",),
    "vsml.tasks.decoders": (
        "vsml.tasks.data.entry",
        "vsml.tasks.data.idx",
        "vsml.tasks.data.sets.cifar10",
        "vsml.tasks.data.sets.digits",
        "vsml.tasks.data.sets.emnist",
        "vsml.tasks.data.sets.omniglot",
        "vsml.tasks.data.sets.svhn",
        "vsml.tasks.data.sets.usps",
    ),
    "vsml.tasks.download": ("vsml.tasks.data.download",),
    "vsml.tasks.errors": ("vsml.tasks.data.errors",),
    "vsml.tasks.files": ("vsml.tasks.data.files",),
    "vsml.tasks.generators": ("vsml.tasks.data.generator",),
    "vsml.tasks.npz": ("vsml.tasks.data.npz",),
    "vsml.tasks.registry": ("vsml.tasks.data.entry",),
    "vsml.tasks.sources": ("vsml.tasks.data.sources",),
    "vsml.text_plots": ("vsml.reporting.text_plots",),
    "vsml.tracking": ("vsml.runs.wandb",),
    "vsml.train": ("vsml.calls.train", "vsml.meta.step"),
}
"""Old modules, each with those that hold now what it held, in the order in which they are searched."""

NAMES: dict[str, str] = {
    "vsml.build:NO_PAD": "vsml.launching.version_0_1:NO_PAD",
    "vsml.build:check_evaluation": "vsml.launching.version_0_1:check_evaluation",
    "vsml.build:check_same_kernel": "vsml.launching.version_0_1:check_same_kernel",
    "vsml.build:chunk_size": "vsml.launching.version_0_1:chunk_size",
    "vsml.build:clone_draws": "vsml.launching.version_0_1:clone_draws",
    "vsml.build:clone_groups": "vsml.launching.version_0_1:clone_groups",
    "vsml.build:evaluation_tasks": "vsml.launching.version_0_1:evaluation_tasks",
    "vsml.build:learner_maker": "vsml.launching.version_0_1:learner_maker",
    "vsml.build:load_evaluation_data": "vsml.launching.version_0_1:load_evaluation_data",
    "vsml.build:load_training_data": "vsml.launching.version_0_1:load_training_data",
    "vsml.build:meta_optimizer": "vsml.launching.version_0_1:meta_optimizer",
    "vsml.build:training_groups": "vsml.launching.version_0_1:training_groups",
    "vsml.cloning:judge": "vsml.calls.clone:evaluate_clone",
    "vsml.cloning:write_proof": "vsml.launching.version_0_1:write_proof",
    "vsml.config:Config": "vsml.launching.schema:WholeConfig",
    "vsml.config:IntrospectConfig": "vsml.calls.introspect:IntrospectConfig",
    "vsml.config:evaluation_specs": "vsml.launching.version_0_1:evaluation_specs",
    "vsml.config:examples_per_step": "vsml.launching.version_0_1:examples_per_step",
    "vsml.config:training_specs": "vsml.launching.version_0_1:training_specs",
    "vsml.config_array:load_array_configs": "vsml.launching.schema:load_array_configs",
    "vsml.config_files:load_config": "vsml.launching.schema:load_config",
    "vsml.contenders:Contender": "vsml.evaluation.candidates:Candidate",
    "vsml.contenders:compared_contenders": "vsml.launching.version_0_1:compared_contenders",
    "vsml.contenders:initial_key": "vsml.launching.version_0_1:initial_key",
    "vsml.contenders:own_contender": "vsml.launching.version_0_1:own_contender",
    "vsml.contenders:restored_params": "vsml.launching.version_0_1:restored_params",
    "vsml.contenders:untrained_contender": "vsml.launching.version_0_1:untrained_contender",
    "vsml.cost:wiring": "vsml.networks.wirings.base:Extent",
    "vsml.evaluate:dispatch_evaluations": "vsml.launching.version_0_1:dispatch_evaluations",
    "vsml.evaluate:evaluate_all": "vsml.launching.version_0_1:evaluate_all",
    "vsml.evaluate:run_evaluation": "vsml.launching.version_0_1:run_evaluation",
    "vsml.experiments:Opened": "vsml.introspection.experiments:SynapseReport",
    "vsml.experiments:check_opened": "vsml.introspection.experiments:check_inspectable",
    "vsml.experiments:first_sights": "vsml.introspection.experiments:nth_exposure",
    "vsml.experiments:open_synapses": "vsml.introspection.experiments:inspect_synapses",
    "vsml.experiments:swap": "vsml.introspection.experiments:label_swap",
    "vsml.experiments:switched_off": "vsml.introspection.experiments:ablation",
    "vsml.following:Followed": "vsml.introspection.trajectories:Trajectories",
    "vsml.following:follow": "vsml.introspection.trajectories:compare_trajectories",
    "vsml.following:follow_all": "vsml.introspection.trajectories:write_trajectories",
    "vsml.introspection:Look": "vsml.calls.introspect:Introspection",
    "vsml.introspection:look": "vsml.calls.introspect:introspect",
    "vsml.introspection:looks": "vsml.calls.introspect:introspect_all",
    "vsml.introspection:run_introspection": "vsml.launching.version_0_1:run_introspection",
    "vsml.introspection:write_looks": "vsml.calls.introspect:write_introspections",
    "vsml.kernels.fused:MOST_ERROR": "vsml.networks.kernels.fused:MAX_ERROR",
    "vsml.kernels.native:COMPILE_S": "vsml.networks.kernels.libraries:COMPILE_S",
    "vsml.kernels.native:SOURCE": "vsml.networks.kernels.native:DENSE_SOURCE",
    "vsml.kernels.native:MOST_STATE": "vsml.networks.kernels.native:MAX_STATE",
    "vsml.learners.sgd:CONV_ACTIVATIONS": "vsml.networks.mlp:CONV_ACTIVATIONS",
    "vsml.learners.sgd:CONV_CHANNELS": "vsml.networks.mlp:CONV_CHANNELS",
    "vsml.meta.cloning:Cloning": "vsml.meta.objectives.clone:cloning",
    "vsml.meta.objective:UNITS_PER_DEVICE": "vsml.meta.mapping:TRIALS_PER_DEVICE",
    "vsml.meta.objective:group_units": "vsml.meta.trials:group_trials",
    "vsml.meta.objective:map_units": "vsml.meta.mapping:map_trials",
    "vsml.meta.objective:sample_unit": "vsml.meta.trials:sample_trial",
    "vsml.meta.objective:sum_units": "vsml.meta.mapping:sum_trials",
    "vsml.meta.objective:unit_result": "vsml.meta.objectives.episode:trial_result",
    "vsml.meta:group_units": "vsml.meta.trials:group_trials",
    "vsml.modules:Features": "vsml.networks.modules:ConvEncoder",
    "vsml.plan:GRADIENT_COST": "vsml.launching.version_0_1:GRADIENT_COST",
    "vsml.plan:describe": "vsml.launching.version_0_1:describe",
    "vsml.plan:step_flops": "vsml.launching.version_0_1:step_flops",
    "vsml.plan:task_shapes": "vsml.launching.version_0_1:task_shapes",
    "vsml.pretrained:ship": "vsml.pretrained:export",
    "vsml.scaling:work_of": "vsml.launching.version_0_1:work_of",
    "vsml.tasks.generators:GENERATORS": "vsml.tasks.data.sets:DATASETS",
    "vsml.tasks.registry:REGISTRY": "vsml.tasks.data.sets:DATASETS",
    "vsml.train:run_training": "vsml.launching.version_0_1:run_training",
}
"""Names that have changed: old `module:name` to the present `module:name`."""

_PALLAS = "it belonged to the GPU kernel in Pallas; the one in CUDA chooses its blocks by itself"

_RATIONAL = "tanh has two rational functions, FINE and COARSE of vsml.networks.kernels.activations"

GONE: dict[str, str] = {
    "vsml.kernels.activations:BOUND": _RATIONAL,
    "vsml.kernels.activations:P": _RATIONAL,
    "vsml.kernels.activations:Q": _RATIONAL,
    "vsml.kernels.fused:BLOCKS": _PALLAS,
    "vsml.kernels.fused:LEAST_SIZE": _PALLAS,
    "vsml.kernels.fused:MOST_IDLE": _PALLAS,
    "vsml.kernels.fused:Operand": _PALLAS,
    "vsml.kernels.fused:THREAD_NUMBERS": _PALLAS,
    "vsml.kernels.fused:block_size": _PALLAS,
}
"""Names that nothing has taken the place of: old `module:name` to the reason."""

PACKAGES = frozenset(["vsml.config", "vsml.cost", "vsml.introspection", "vsml.meta", "vsml.runs"])
"""Old modules whose name a package has now: these forward by themselves, with `old_names`."""


def old_names(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of an old module: it finds a name where it is now, and warns.

    A module that goes on, and has lost a name only, uses it too: it needs no place in `MODULES`.

    Args:
        module: the old module's dotted name.
    """

    def find(name: str) -> Any:
        for place in _places(module, name):
            new_module, _, new_name = place.partition(":")
            found = importlib.import_module(new_module)
            if hasattr(found, new_name):
                message = (
                    f"{module}.{name} is {new_module}.{new_name} now; the old name goes with version 0.3"
                )
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                return getattr(found, new_name)
        reason = GONE.get(f"{module}:{name}")
        told = (
            f"{module}.{name} is gone: {reason}" if reason else f"module {module!r} has no attribute {name!r}"
        )
        raise AttributeError(told)

    return find


def _places(module: str, name: str) -> list[str]:
    """Return where a name of an old module may be now, as `module:name`."""
    if name.startswith("__"):  # what Python itself asks a module for
        return []
    renamed = NAMES.get(f"{module}:{name}")
    if renamed is not None:
        return [renamed]
    return [f"{new}:{name}" for new in MODULES.get(module, ())]


class _OldModules(MetaPathFinder, Loader):
    """Makes old modules on import: empty ones, which forward what they are asked for."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of an old module; None for any other."""
        if name not in MODULES or name in PACKAGES:
            return None
        return ModuleSpec(name, self, is_package=any(other.startswith(f"{name}.") for other in MODULES))

    def exec_module(self, module: types.ModuleType) -> None:
        """Let the module forward."""
        module.__doc__ = f"The old name of {', '.join(MODULES[module.__name__])}."
        module.__dict__["__getattr__"] = old_names(module.__name__)


def install() -> None:
    """Make old modules importable, once for all."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
