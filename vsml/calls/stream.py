"""The call `stream`: learners on long streams of tasks, each in a life that a checkpoint keeps."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field

from vsml.calls.sources import tell_sources
from vsml.config.files import ConfigError
from vsml.evaluation.candidates import (
    RESTORED,
    Candidate,
    compared_candidates,
    own_candidate,
    restored_params,
    start_name,
)
from vsml.evaluation.stream_results import FIGURE, write_stream_results
from vsml.evaluation.stream_scores import Mark, StreamScore
from vsml.evaluation.streaming import Lives, seed_keys
from vsml.learners import make_learner
from vsml.learners.memory import state_floats
from vsml.options import build_plugin, plugin_problems
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.runs.record import write_or_rescue
from vsml.runs.wandb import start_tracking
from vsml.settings import Float, Plugin, Positive, Problem, Section, Text
from vsml.setup import EvaluationTask, Setup, Source, config_mistakes
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write
from vsml.system.signals import Stopped, StopSignals
from vsml.system.terminal import say
from vsml.tasks.streams import STREAMS, Stream, StreamKind

FOLDER = "lives"
"""Where a run keeps the checkpoints of lives, a folder each."""


class Published(Section):
    """A number that others have reported, to be shown beside ours."""

    name: Text = Field(description="of the method")
    value: Float = Field(description="what was reported, in the measure of the stream")
    mark: Mark = Field(
        description="R: read in the source; P: a third party's run; M: measured for this project"
    )
    stream: Text | None = Field(default=None, description="which of the streams it is about; null: all")
    note: Text | None = Field(default=None, description="where it is from, or how it differs")


class StreamConfig(Section):
    """What `call: stream` does with the learners of `evaluation.learners`."""

    kind: Plugin = Field(
        default=Plugin(type="episodes"),
        description="what streams are made of. episodes: of evaluation.datasets, an episode being a task; "
        "slow_bits, gaussians: drawn, with evaluation.datasets=[]; each a name or the mapping below",
    )
    tasks: Positive = Field(default=10, description="tasks of a stream, one after the other")
    seeds: Positive = Field(
        default=1, description="lives of each learner, side by side, each with its own stream"
    )
    only: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="names of those of evaluation.learners that live, as one for each process; null: all",
    )
    checkpoint_s: Annotated[Float, Field(ge=0)] = Field(
        default=30.0, description="seconds between checkpoints of a life; they are written between tasks"
    )
    published: tuple[Published, ...] = Field(
        default=(), description="numbers of others that tables and figures show beside ours"
    )


@dataclass(frozen=True)
class RunStreams:
    """`call: stream`: let learners live through long streams.

    Attributes:
        config: its settings.
    """

    config: StreamConfig

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield what streams cannot be made of."""
        problems = list(plugin_problems(STREAMS, "stream.kind", self.config.kind))
        yield from problems
        if problems:
            return
        evaluation = setup.config.evaluation
        involved = ("call", "stream.kind")
        needs_data = self._kind().needs_data
        kind = self.config.kind.name
        if needs_data and not evaluation.datasets:
            yield Problem("evaluation.datasets", (), f"one or more, of which {kind} are made", involved)
        if not needs_data and evaluation.datasets:
            got = list(map(str, evaluation.datasets))
            yield Problem("evaluation.datasets", got, f"[], as {kind} are drawn from none", involved)
        if evaluation.batch_size > 1:
            yield Problem("evaluation.batch_size", evaluation.batch_size, "1 with call: stream", involved)
        names = [learner.name for learner in evaluation.learners]
        for name in self.config.only or ():
            if name not in names:
                yield Problem("stream.only", name, f"one of {', '.join(names)}", ("evaluation.learners",))
        for index, learner in enumerate(evaluation.learners):
            if learner.tune:
                expected = "nothing, with call: stream: name the settings in `model`"
                yield Problem(f"evaluation.learners.{index}.tune", dict(learner.tune), expected, involved)

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return how long the streams are, and who lives through them."""
        del ranks
        config = setup.config
        lines = [f"streams: {self.config.kind.name}, {self.config.tasks} tasks, {self.config.seeds} seed(s)"]
        if self._kind().needs_data:
            for spec in config.evaluation_specs:
                length = spec.task.episode_length
                examples = self.config.tasks * length
                lines.append(f"  {spec.name}: tasks of {length:,} examples, {examples:,} in all")
        else:
            for stream in self._kind().streams([]):
                examples = self.config.tasks * stream.task_length
                lines.append(
                    f"  {stream.name}: tasks of {stream.task_length:,} examples, {examples:,} in all"
                )
        names = [entry.name for entry in config.evaluation.learners] or [config.model.type]
        names = [name for name in names if self.config.only is None or name in self.config.only]
        return [*lines, *(f"  learner {name}" for name in names)]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Live on rank 0, from the checkpoints where there are any; a run that was stopped can be resumed."""
        candidates, sources, missing = self._candidates(setup, comm)
        if run is not None:
            tell_sources(run, sources.values())
            for reason in missing:
                say(f"left out: {reason}")
            with StopSignals() as stop:
                try:
                    self._live(setup, candidates, run, resume, stop)
                except Stopped as why:
                    say(f"stopped ({why}); to go on: {resume_command(run.path)}")
        comm.barrier()
        return 0

    def _kind(self) -> StreamKind:
        with config_mistakes():
            return build_plugin(STREAMS, self.config.kind)

    def _candidates(
        self, setup: Setup, comm: Communicator
    ) -> tuple[list[Candidate], dict[str, Source], list[str]]:
        """Return who lives, the data, and why optional data are left out."""
        sources, missing = setup.load_evaluation_data(comm)
        tasks = setup.evaluation_tasks(sources)
        if self._kind().needs_data and not tasks:
            raise ConfigError(["evaluation.datasets: nothing to make streams of", *missing])
        candidates: list[Candidate] = []
        if setup.restores:
            stored = restored_params(setup, comm)
            candidates.append(own_candidate(setup, RESTORED, stored.fit, tasks))
        compared = compared_candidates(setup, sources, comm)
        only = self.config.only
        candidates += [each for each in compared if only is None or each.name in only]
        if not candidates:
            name = start_name(setup, tasks[0]) if tasks else setup.model.type
            candidates.append(own_candidate(setup, name, setup.fresh_params, tasks))
        return candidates, sources, missing

    def _live(
        self,
        setup: Setup,
        candidates: Sequence[Candidate],
        run: RunDirectory,
        resume: bool,
        stop: StopSignals,
    ) -> None:
        """Let every learner live through every stream with every seed, and write what it came to."""
        (run.path / FOLDER).mkdir(exist_ok=True)
        run.complete.unlink(missing_ok=True)
        scores = []
        for candidate in candidates:
            for stream, identity in self._streams_of(setup, candidate):
                lives = self._lives(setup, candidate, stream, identity)
                folder = run.path / FOLDER / _folder_name(candidate.name, stream.name)
                if resume and lives.restore(folder):
                    say(f"{candidate.name}, {stream.name}: goes on from task {lives.done}")
                keeper = _Keeper(folder, stop, self.config.checkpoint_s)
                lives.go_on(self.config.tasks, keeper)
                keeper.save(lives)
                scores.append(_score_of(candidate.name, stream, lives, self.config.tasks))
                row = scores[-1].summary()
                measure = row["metric"].replace("_", " ")
                what = f"{candidate.name}, {stream.name}: {measure} {row['score']:.4f}"
                say(f"{what} over {row['tasks']} tasks, {row['us_per_example']:.0f} us per example")
        published = [entry.model_dump(mode="json") for entry in self.config.published]
        write_or_rescue(run, lambda place: write_stream_results(place, scores, published))
        tracker = start_tracking(setup.config, run)
        rows = [score.summary() for score in scores]
        plain = [{k: v for k, v in row.items() if k not in ("interval_95", "fixed")} for row in rows]
        tracker.log_table("stream", plain)
        if (run.path / FIGURE).exists():
            tracker.log_image("streams", run.path / FIGURE)
        tracker.finish()
        atomic_write(run.complete, "")

    def _streams_of(self, setup: Setup, candidate: Candidate) -> list[tuple[Stream, dict[str, Any]]]:
        """Return the streams of a candidate, each with the settings that it is made by."""
        kind = self._kind()
        own = {"stream.kind": self.config.kind.model_dump(mode="json")}
        tasks: Sequence[EvaluationTask] = candidate.tasks if kind.needs_data else ()
        streams = kind.streams([(each.name, each.task) for each in tasks])
        if not kind.needs_data:
            return [(stream, own) for stream in streams]
        specs = setup.config.evaluation_specs
        subset = setup.config.evaluation.subset
        made = []
        for each, stream in zip(tasks, streams, strict=True):
            made.append((stream, {**own, "evaluation.datasets": f"{specs[each.number].task}, {subset}"}))
        return made

    def _lives(
        self,
        setup: Setup,
        candidate: Candidate,
        stream: Stream,
        identity: dict[str, Any],
    ) -> Lives:
        """Return lives at their beginning; learners with the same seed meet the same stream."""
        _, model = candidate.choices[0]
        with config_mistakes():
            learner = make_learner(model.type, model.settings, stream.input_shape, stream.outputs)
        keys = seed_keys(setup.config.evaluation.seed, self.config.seeds)
        identity = {
            "learner": candidate.name,
            "model": model.model_dump(mode="json"),
            "evaluation.seed": setup.config.evaluation.seed,
            "stream.seeds": self.config.seeds,
            **identity,
        }
        return Lives(learner, stream, keys, candidate.params_for(learner), identity)


class _Keeper:
    """Saves lives between tasks from time to time, and before they are stopped."""

    def __init__(self, folder: Path, stop: StopSignals, every_s: float) -> None:
        self.folder = folder
        self.stop = stop
        self.every_s = every_s
        self.saved_at = time.monotonic()
        self.saved = -1

    def __call__(self, lives: Lives) -> None:
        if self.stop:
            self.save(lives)
            raise Stopped(self.stop.received or "a signal")
        if time.monotonic() - self.saved_at >= self.every_s:
            self.save(lives)

    def save(self, lives: Lives) -> None:
        """Write what is not written yet."""
        if self.saved != lives.done:
            lives.save(self.folder)
            self.saved = lives.done
            self.saved_at = time.monotonic()


def _folder_name(learner: str, stream: str) -> str:
    """Return the name of the folder of the lives of a learner: what file systems take, and no two alike."""
    return f"{quote(learner, safe='+ ')}@{quote(stream, safe='+ ')}".replace(" ", "_")


def _score_of(name: str, stream: Stream, lives: Lives, tasks: int) -> StreamScore:
    """Return what the lives of a learner came to over so many tasks."""
    examples = lives.done * len(lives.keys) * stream.task_length
    return StreamScore(
        learner=name,
        stream=stream.name,
        outputs=stream.outputs,
        task_length=stream.task_length,
        state=state_floats(lives.learner),
        sums={name: values[:tasks] for name, values in lives.sums.items()},
        us_per_example=1e6 * lives.seconds / examples,
    )
