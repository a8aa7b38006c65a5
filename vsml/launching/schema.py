"""The whole configuration: what all calls share, and a section for each call that has settings of its own."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, create_model, model_validator

from vsml.calls import CALLS, Call
from vsml.config.array import load_array_configs as _load_array_configs
from vsml.config.files import DEFAULT_FILE, ArrayEntry
from vsml.config.files import load_config as _load_config
from vsml.config.schema import Config
from vsml.config.sections import EvaluationConfig
from vsml.config.specs import EvaluationSpec, TaskSpec
from vsml.evaluation.metrics import METRICS
from vsml.evaluation.scores import OWN_NAMES
from vsml.options import member_problems, plugin_problems, read_options
from vsml.registry import Registry, section_of
from vsml.runs.callbacks import CALLBACKS
from vsml.settings import NoSettings, Plugin, Problem, Section, refuse
from vsml.setup import Setup
from vsml.tasks.data.errors import UnknownDataSetError
from vsml.tasks.data.sources import look_up


class _WholeConfig(Config):
    """What all calls share, checked with what only those above the configuration know."""

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        refuse(_member_problems(self))
        return self


def _call_sections() -> dict[str, type[Section]]:
    """Return the sections of calls that have settings of their own, by name."""
    sections = {name: section_of(factory) for name, factory in CALLS.items()}
    return {name: section for name, section in sections.items() if section is not NoSettings}


if TYPE_CHECKING:
    WholeConfig = Config
else:
    WholeConfig = create_model(
        "WholeConfig",
        __base__=_WholeConfig,
        __doc__=Config.__doc__,
        **{
            name: (section, Field(default=section(), description=f"settings of call: {name}"))
            for name, section in _call_sections().items()
            if name not in Config.model_fields
        },
    )


def _member_problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with data sets, with the call, with metrics and with callbacks."""
    yield from _data_set_problems(config.training_specs, config.evaluation, config.evaluation_specs)
    yield from _list_problems(METRICS, "evaluation.metrics", config.evaluation.metrics, OWN_NAMES)
    yield from _list_problems(CALLBACKS, "training.callbacks", config.training.callbacks)
    options = dict(config.call_options)
    if config.call not in CALLS:
        problems = list(member_problems(CALLS, config.call, options, "call", "call_options"))
        yield from problems
        if problems:
            return
    elif options:
        yield Problem("call_options", options, f"none with call: {config.call}", ("call",))
    yield from call_of(config).problems(Setup(config))


def _data_set_problems(
    training: Sequence[TaskSpec], evaluation: EvaluationConfig, specs: Sequence[EvaluationSpec]
) -> Iterator[Problem]:
    """Yield names of data sets that there are none of; whether their files are there is no matter here."""
    named = [("training.dataset", spec.dataset) for spec in training]
    for number, spec in enumerate(specs):
        entry = evaluation.datasets[number]
        path = f"evaluation.datasets.{number}"
        named.append((path if isinstance(entry, str) else f"{path}.dataset", spec.task.dataset))
    for path, name in dict.fromkeys(named):
        if name.endswith(".npz"):
            continue
        try:
            look_up(name)
        except UnknownDataSetError as error:
            yield Problem(path, name, error.expected)


def _list_problems(
    registry: Registry, path: str, plugins: Sequence[Plugin], taken: Sequence[str] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with members that a list of the configuration names."""
    names: list[str] = []
    for number, plugin in enumerate(plugins):
        yield from plugin_problems(registry, f"{path}.{number}", plugin)
        is_outside = plugin.type not in registry
        if is_outside and plugin.name in (*registry, *taken):
            expected = f"a name of its own, and none of {', '.join((*registry, *taken))}"
            yield Problem(f"{path}.{number}.type", plugin.type, expected)
        if plugin.name in names:
            yield Problem(f"{path}.{number}", plugin.type, "each but once", (path,))
        names.append(plugin.name)


def call_of(config: Config) -> Call:
    """Return the call that a configuration names, with its settings."""
    factory = CALLS.resolve(config.call)
    if config.call not in CALLS:
        return factory(config=read_options(factory, dict(config.call_options), "call_options"))
    if config.call in _call_sections():
        return factory(config=getattr(config, config.call))
    return factory(config=NoSettings())


def load_config(
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    entry: ArrayEntry | None = None,
    tags: Sequence[str] = (),
    default: str | Path | None = DEFAULT_FILE,
) -> Config:
    """Return a whole configuration; see `vsml.config.files.load_config`."""
    return _load_config(WholeConfig, files, overrides, entry=entry, tags=tags, default=default)


def load_array_configs(
    entries: Sequence[ArrayEntry],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    tags: Sequence[str] = (),
    default: str | Path | None = DEFAULT_FILE,
) -> tuple[Config, ...]:
    """Return the whole configuration of every entry; see `vsml.config.array.load_array_configs`."""
    return _load_array_configs(WholeConfig, entries, files, overrides, tags=tags, default=default)
