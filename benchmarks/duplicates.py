"""How many duplicates of a bred population are found before they learn.

    python benchmarks/duplicates.py [--config configs/search/repair.yaml] [--generations 20] [--json FILE]

A child is a duplicate if it does what a rule that was met before does. Three ways to see that:

- known: the key of S0 is one that was met. It is a hash of the live program, whatever its names and order.
- twin: the answers of S1, rounded to three digits, are those of another rule.
- missed: it went on to learn, and its progress in every length of every stage is that of another rule, to
  the last digit. So it was one more copy, and its run was in vain. Rules at the end of the scale (-1: as far
  from the targets as counts) say nothing, and are left out.

The share that is rejected is that of known and twins among all three. A twin may be no duplicate: rules that
answer alike for 18 ticks may differ later. Results go to benchmarks/results, unless --json names a file.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
from rich.console import Console

from benchmarks.report import default_path, record_of, write
from vsml.launching.schema import load_config
from vsml.reporting.tables import Table
from vsml.search import Breeder, Judge
from vsml.search.sources import genomes_of, texts_of
from vsml.search.stages import KNOWN, REASONS, TWIN

_WORST = -1.0
"""The least progress there is."""


def bred(path: Path, generations: int, seed: int) -> list[dict[str, Any]]:
    """Breed, and return the counts after each generation, ready for JSON."""
    config = load_config([path]).search  # type: ignore[attr-defined]
    judge = Judge(config.judging, config.teaching, config.room, seed)
    sources = genomes_of(texts_of(config.start), config.room)
    key = jax.random.key(seed)
    breeder = Breeder(config.breeding, config.drawing, config.mutations, judge, sources, key)
    met: Counter[tuple[float, ...]] = Counter()
    rows = []
    for number in range(1, generations + 1):
        for each in breeder.step().bred:
            scores = tuple(each.survivor.scores.values())
            if min(scores) > _WORST:
                met[(each.survivor.fitness, *scores)] += 1
        known = judge.funnel.ended.get(("S0", REASONS[KNOWN]), 0)
        twins = judge.funnel.ended.get(("S1", REASONS[TWIN]), 0)
        missed = sum(count - 1 for count in met.values())
        found = known + twins
        rows.append(
            {
                "generation": number,
                "proposed": judge.funnel.proposed,
                "known": known,
                "twins": twins,
                "missed": missed,
                "rejected": found / max(found + missed, 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    default = ROOT / "configs" / "search" / "repair.yaml"
    parser.add_argument("--config", type=Path, default=default, help="of the search")
    parser.add_argument("--generations", type=int, default=20, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    if options.generations < 1:
        parser.error(f"--generations: got {options.generations}, expected a number above 0")
    rows = bred(options.config, options.generations, options.seed)
    last = rows[-1]
    names = ("proposed", "known", "twins", "missed")
    cells = [[*(f"{last[name]:,}" for name in names), f"{last['rejected']:.1%}"]]
    Console(width=120).print(Table([*names, "rejected"], cells, "Duplicates in a bred population"))
    settings = {"config": options.config.name, "generations": options.generations, "seed": options.seed}
    path = options.json or default_path("duplicates")
    write(record_of(rows, None, settings), path)
    print(f"results: {path}")


if __name__ == "__main__":
    main()
