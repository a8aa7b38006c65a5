"""Sources of a run: what was decided about its data sets on reading them, told and kept."""

from collections.abc import Iterable

from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.system.files import write_json
from vsml.tasks.data.dataset import Dataset, describe
from vsml.tasks.data.generator import Source

FILE = "datasets.json"


def tell_sources(run: RunDirectory, sources: Iterable[Source]) -> None:
    """Say which labels are which classes, and what is standardised by column; write it to `datasets.json`.

    Args:
        run: whose folder gets the file, if there is anything to say.
        sources: of the run; a data set may come twice, as its two halves.
    """
    told = {}
    for source in sources:
        if not isinstance(source, Dataset):
            continue
        words = describe(source)
        if not words or source.name in told:
            continue
        say(f"{source.name}: {'; '.join(words)}")
        told[source.name] = {
            "class_labels": source.class_labels,
            "column_mean": source.column_mean,
            "column_std": source.column_std,
        }
    if told:
        write_json(run.path / FILE, told)
