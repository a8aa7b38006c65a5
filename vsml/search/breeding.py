"""Breeding: regularised evolution of rules on islands, with an archive of elites, and its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.rules.canonical import rule_hash
from vsml.search.constants import has_constants, tuned
from vsml.search.drawing import draw_genomes
from vsml.search.elites import Archive, Elite, Scores, cell_of
from vsml.search.generation import PROPOSED, Bred, Generation, Happened
from vsml.search.genome import Genome, rule_of, stack_genomes, unstack_genomes
from vsml.search.island import Island, migrate
from vsml.search.judge import Judge, Rated
from vsml.search.mutation import MUTATIONS
from vsml.search.offspring import offspring
from vsml.search.population import Population, arrays_of, genomes_in, taken, tournaments
from vsml.search.settings import Breeding, Drawing, Mutations
from vsml.search.stages import KNOWN, REASONS
from vsml.types import Array

_MOST_DRAWS = 40
"""Batches that are drawn at most to fill a population with rules that pass S0."""

_ONLY_CONSTANTS = Mutations(**{name: float(name == "constant") for name in MUTATIONS})
"""Mutations of the control that tunes constants alone."""

PINNED = "pinned"
"""How the names of cells begin that are kept for one rule; `vsml.search.steering` makes them."""

# What a generation draws, by the number that its key is folded with.
_CHOICE, _CHANGE, _FRESH, _TUNING, _RESTART = range(5)


@dataclass(eq=False)
class Breeder:
    """Breeds rules, a generation at a time; the same on every rank.

    Attributes:
        breeding: settings.
        drawing: how rules and expressions are drawn.
        mutations: how rules are changed.
        judge: how they are judged.
        sources: rules to start from, as lists that share a population evenly; an empty list stands for rules
            that are drawn.
        key: of all that is drawn.
        where: how rules are taught and on which graphs, for the names of cells.
        generation: how many there were.
        islands: the populations.
        hall: the best elites of islands that began anew.
        proposals: rules from outside, which take the places of children in the next generation.
    """

    breeding: Breeding
    drawing: Drawing
    mutations: Mutations
    judge: Judge
    sources: Sequence[Sequence[Genome]]
    key: Array
    where: str = "error, layered"
    generation: int = 0
    islands: list[Island] = field(default_factory=list)
    hall: Archive = field(default_factory=Archive)
    proposals: list[Genome] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: got none, expected rules, or an empty list for rules that are drawn")
        if self.breeding.method in ("best_of", "constants") and not self._starts:
            raise ValueError(f"method: got {self.breeding.method} without rules to start from, expected some")
        if self.breeding.starts and not self._starts:
            raise ValueError(f"starts: got {self.breeding.starts} without rules to start from, expected 0")
        self._batch = self.breeding.islands * self.breeding.children

    @property
    def _starts(self) -> list[Genome]:
        return [genome for source in self.sources for genome in source]

    @property
    def best(self) -> Elite | None:
        """The elite of the highest bound on all islands."""
        elites = [archive.best for archive in self._archives]
        found = [elite for elite in elites if elite is not None]
        return max(found, key=lambda elite: elite.scores.bound, default=None)

    def solution(self, passes: int) -> Elite | None:
        """Return an elite that passed the last stage on its last `passes` fresh seeds; None if none has."""
        for archive in self._archives:
            for elite in archive.elites.values():
                if elite.scores.passes >= passes:
                    return elite
        return None

    @property
    def _archives(self) -> list[Archive]:
        return [*(island.archive for island in self.islands), self.hall]

    def begin(self) -> None:
        """Fill the islands."""
        for number in range(self.breeding.islands):
            population = self._filled(jax.random.fold_in(self.key, 2**31 + number))
            self.islands.append(Island(population, Archive()))

    def step(self) -> Generation:
        """Breed one generation, and return what it has brought."""
        if not self.islands:
            self.begin()
        key = jax.random.fold_in(self.key, self.generation)
        parts = [jax.random.fold_in(key, part) for part in range(5)]
        parents, breeders = self._parents(parts[_CHOICE])
        children, changes = self._children(parents, parts[_CHANGE])
        children, proposed = self._with_proposals(children)
        rated = self.judge.rate(children)
        hosts = jax.device_get(children)
        bred: list[Bred] = []
        for number, island in enumerate(self.islands):
            self._enter(island, self._own(number), hosts, rated)
        for place, survivor in rated.found.items():
            home = place // self.breeding.children
            change = PROPOSED if place in proposed else changes[place]
            parent: Genome | None = None
            if parents is not None and place not in proposed:
                parent = taken(parents, np.array(place))
            bred.append(Bred(survivor, home, parent, change))
        if self._is_tuning:
            bred += self._tune(parts[_TUNING])
        elites = self._update_archives(bred, breeders, parts[_FRESH])
        self.generation += 1
        told = [self._told(place, hosts, rated) for place in proposed]
        events = told + self._migrate() + self._restart(parts[_RESTART])
        return Generation(self.generation, bred, elites, events)

    # Proposals.

    def _with_proposals(self, children: Genome) -> tuple[Genome, list[int]]:
        """Return children of which some are proposals, the last ones of each island, and their places."""
        count = min(len(self.proposals), self._batch)
        if not count:
            return children, []
        proposals, self.proposals = self.proposals[:count], self.proposals[count:]
        hosts = unstack_genomes(jax.device_get(children))
        places: list[int] = []
        for number, proposal in enumerate(proposals):
            turn, island = divmod(number, self.breeding.islands)
            places.append((island + 1) * self.breeding.children - 1 - turn)
            hosts[places[-1]] = proposal
        return stack_genomes(hosts), places

    def _told(self, place: int, children: Genome, rated: Rated) -> Happened:
        """Return what became of a proposal, as an event."""
        survivor = rated.found.get(place)
        said = REASONS[rated.reasons[place]]
        if survivor is not None:
            said = f"passed {survivor.stage}"
        detail = {
            "rule": rule_hash(rule_of(taken(children, np.array(place)))),
            "fitness": float(rated.fitness[place]),
            "said": said,
        }
        return Happened("proposal", place // self.breeding.children, detail)

    # Populations.

    def _own(self, island: int) -> np.ndarray:
        """Return the places of an island's children in a batch."""
        return island * self.breeding.children + np.arange(self.breeding.children)

    def _filled(self, key: Array) -> Population:
        """Return a population of the sources."""
        size = self.breeding.population
        kinds = np.arange(size) % len(self.sources)
        genomes: list[Genome] = []
        fitness: list[float] = []
        for number, source in enumerate(self.sources):
            wanted = int((kinds == number).sum())
            if not wanted:
                continue
            if source:
                found, levels = self._copies(source, wanted)
            else:
                found, levels = self._drawn(wanted, jax.random.fold_in(key, number))
            genomes += found
            fitness += levels
        stacked = jax.device_get(stack_genomes(genomes))
        return Population(stacked, np.array(fitness, np.float32))

    def _rate(self, genomes: Sequence[Genome]) -> Rated:
        """Judge a few rules, at most as many as a generation has; a batch is filled up."""
        filled = [*genomes, *[genomes[0]] * (self._batch - len(genomes))]
        return self.judge.rate(stack_genomes(filled), len(genomes))

    def _copies(self, source: Sequence[Genome], wanted: int) -> tuple[list[Genome], list[float]]:
        """Return rules again and again, and their fitness."""
        levels: list[float] = []
        for first in range(0, len(source), self._batch):
            levels += self._rate(source[first : first + self._batch]).fitness.tolist()
        places = [place % len(source) for place in range(wanted)]
        return [source[place] for place in places], [levels[place] for place in places]

    def _drawn(self, wanted: int, key: Array) -> tuple[list[Genome], list[float]]:
        """Return rules drawn at random that pass S0, the last ones whether they pass or not."""
        passing: list[tuple[Genome, float]] = []
        others: list[tuple[Genome, float]] = []
        for number in range(_MOST_DRAWS):
            drawn = draw_genomes(self.drawing, self.judge.room, jax.random.fold_in(key, number), self._batch)
            rated = self.judge.rate(drawn)
            for place, genome in enumerate(unstack_genomes(jax.device_get(drawn))):
                passed = rated.fitness[place] > 0
                (passing if passed else others).append((genome, float(rated.fitness[place])))
            if len(passing) >= wanted:
                break
        chosen = (passing + others * wanted)[:wanted]
        return [genome for genome, _ in chosen], [level for _, level in chosen]

    def _parents(self, key: Array) -> tuple[Genome | None, list[tuple[int, str]]]:
        """Return the parents of a generation, stacked, and which elites are among them."""
        breeding = self.breeding
        if breeding.method == "random":
            return None, self._all_cells()
        if breeding.method == "best_of":
            places = np.asarray(jax.random.randint(key, (self._batch,), 0, len(self._starts)))
            return stack_genomes([self._starts[place] for place in places.tolist()]), self._all_cells()
        chosen: list[Genome] = []
        breeders: dict[tuple[int, str], None] = {}
        for number, island in enumerate(self.islands):
            of_tournament, of_elite, of_share = jax.random.split(jax.random.fold_in(key, number), 3)
            winners = np.asarray(
                tournaments(
                    of_tournament,
                    breeding.children,
                    breeding.tournament,
                    jnp.asarray(island.population.fitness),
                )
            )
            parents = unstack_genomes(taken(island.population.genomes, winners))
            of_starts = self._put_starts(parents, jax.random.fold_in(of_share, 1))
            cells = self._cells(number)
            if cells:
                shares = np.asarray(jax.random.uniform(of_share, (breeding.children,)))
                picks = np.asarray(jax.random.randint(of_elite, (breeding.children,), 0, len(cells)))
                for place in np.flatnonzero((shares < breeding.elites) & ~of_starts).tolist():
                    cell = cells[picks[place]]
                    parents[place] = island.archive.elites[cell].genome
                    breeders[number, cell] = None
            chosen += parents
        return stack_genomes(chosen), list(breeders)

    def _put_starts(self, parents: list[Genome], key: Array) -> np.ndarray:
        """Put rules that the search began with in the place of some parents; return which, bool [parents]."""
        starts, share = self._starts, self.breeding.starts
        if not share:
            return np.zeros(len(parents), bool)
        of_share, of_start = jax.random.split(key)
        shares = np.asarray(jax.random.uniform(of_share, (len(parents),)))
        picks = np.asarray(jax.random.randint(of_start, (len(parents),), 0, len(starts)))
        is_start = shares < share
        for place in np.flatnonzero(is_start).tolist():
            parents[place] = starts[picks[place]]
        return is_start

    def _cells(self, island: int) -> list[str]:
        return list(self.islands[island].archive.elites)

    def _all_cells(self) -> list[tuple[int, str]]:
        """Return all elites, by island and cell."""
        return [(number, cell) for number in range(len(self.islands)) for cell in self._cells(number)]

    def _children(self, parents: Genome | None, key: Array) -> tuple[Genome, list[str]]:
        """Return the children of a generation, stacked, and what was changed."""
        if parents is None:
            return draw_genomes(self.drawing, self.judge.room, key, self._batch), ["drawn"] * self._batch
        weights = _ONLY_CONSTANTS if self.breeding.method == "constants" else self.mutations
        of_counts, of_others = jax.random.split(jax.random.fold_in(key, 2**31))
        counts = 1 + np.asarray(jax.random.randint(of_counts, (self._batch,), 0, self.breeding.changes))
        order = np.asarray(jax.random.permutation(of_others, self._batch))
        others = jax.tree.map(jnp.asarray, taken(parents, order))
        children, names = offspring(self.drawing, weights, parents, others, counts, key)
        return children, [" + ".join(each) for each in names]

    def _enter(self, island: Island, places: np.ndarray, children: Genome, rated: Rated) -> None:
        """Let children into a population: programs that passed S0, each of which no member is.

        A program that was met before has the fitness that it had then. An island that began anew thus
        finds the ways again that others went.
        """
        own = places[rated.fitness[places] > 0]
        if (rated.reasons[own] == KNOWN).any():
            there = set(self.judge.keys_of(island.population.genomes))
            first: list[int] = []
            for place in own.tolist():
                if rated.keys[place] not in there:
                    there.add(rated.keys[place])
                    first.append(place)
            own = np.array(first, int)
        island.population = island.population.entered_by(taken(children, own), rated.fitness[own])

    # Elites.

    @property
    def _is_tuning(self) -> bool:
        breeding = self.breeding
        tunes = breeding.tune is not None and breeding.method in ("evolution", "constants")
        return bool(tunes and (self.generation + 1) % (breeding.tune or 1) == 0)

    def _tune(self, key: Array) -> list[Bred]:
        """Tune the constants of the best elite of each island, and return the rules that are new by it."""
        found: list[Bred] = []
        for number, island in enumerate(self.islands):
            elite = island.archive.best
            if elite is None or not has_constants(elite.genome):
                continue
            rule = tuned(
                elite.genome, self.judge.fresh, self.breeding.tune_rounds, jax.random.fold_in(key, number)
            )
            if np.array_equal(rule.constants, elite.genome.constants):
                continue
            # Judged as any other rule, so that its score is one of the same tasks.
            for survivor in self._rate([rule]).found.values():
                found.append(Bred(survivor, number, elite.genome, "constants tuned"))
                island.enter(survivor)
        return found

    def _update_archives(
        self,
        bred: Sequence[Bred],
        breeders: Sequence[tuple[int, str]],
        key: Array,
    ) -> list[tuple[int, Elite]]:
        """Score elites that bred, and rules that may become elites, on fresh seeds; return who changed."""
        passing = self.judge.passing
        entries: list[tuple[int, Elite]] = []
        for number, cell in breeders:
            elite = self.islands[number].archive.elites[cell]
            if elite.scores.count < self.breeding.rescored:
                entries.append((number, elite))
        held = len(entries)
        challengers: dict[tuple[int, str], Bred] = {}
        for each in bred:
            fitness = each.survivor.fitness
            cell = cell_of(each.survivor.genome, each.survivor.stage, self.where)
            if not self.islands[each.island].archive.wants(cell, fitness):
                continue
            best = challengers.get((each.island, cell))
            if best is None or fitness > best.survivor.fitness:
                challengers[each.island, cell] = each
        for (number, cell), each in challengers.items():
            first = Scores().plus(each.survivor.fitness, False)
            entries.append((number, Elite(each.survivor.genome, first, cell, self.generation + 1)))
        fresh = self.judge.fresh([elite.genome for _, elite in entries], key)
        changed: list[tuple[int, Elite]] = []
        for place, ((number, elite), fitness) in enumerate(zip(entries, fresh, strict=True)):
            archive = self.islands[number].archive
            scored = elite.scored(fitness, passing)
            if place < held:
                archive.elites[elite.cell] = scored
                changed.append((number, scored))
            elif archive.take(scored):
                changed.append((number, scored))
        for island in self.islands:
            best_elite = island.archive.best
            if best_elite is not None and best_elite.scores.bound > island.highest:
                island.highest = best_elite.scores.bound
                island.improved = self.generation + 1
        return changed

    # Islands.

    def _migrate(self) -> list[Happened]:
        """Let the fittest migrate, if it is time for that."""
        count = len(self.islands)
        if count < 2 or self.generation % self.breeding.migration:
            return []
        migrate(self.islands, self.breeding.migrants)
        return [Happened("migration", number, {"from": (number - 1) % count}) for number in range(count)]

    def _restart(self, key: Array) -> list[Happened]:
        """Begin islands anew that have not become better for long."""
        if self.breeding.method in ("random", "best_of"):
            return []  # they do not breed from their population
        events: list[Happened] = []
        for number, island in enumerate(self.islands):
            if self.generation - island.improved < self.breeding.patience:
                continue
            best = island.archive.best
            detail = {"bound": None if best is None else best.scores.bound, "restarts": island.restarts + 1}
            events.append(Happened("restart", number, detail))
            for cell, elite in island.archive.elites.items():
                if not cell.startswith(PINNED):
                    self.hall.take(elite)
            population = self._filled(jax.random.fold_in(key, number))
            pinned = {cell: elite for cell, elite in island.archive.elites.items() if cell.startswith(PINNED)}
            self.islands[number] = Island(
                population, Archive(pinned), improved=self.generation, restarts=island.restarts + 1
            )
        return events

    # What a run that is resumed needs.

    def tree(self) -> dict[str, Any]:
        """Return all that changes, as arrays by name."""
        islands: dict[str, Any] = {}
        for number, island in enumerate(self.islands):
            islands[str(number)] = {
                "population": arrays_of(island.population.genomes),
                "fitness": island.population.fitness,
                "elites": island.archive.tree(),
            }
        return {"islands": islands, "hall": self.hall.tree(), "judge": self.judge.tree()}

    def metadata(self) -> dict[str, Any]:
        """Return the rest of it, ready for JSON."""
        islands = []
        for island in self.islands:
            islands.append(
                {
                    "elites": island.archive.rows(),
                    "improved": island.improved,
                    "highest": None if island.highest == -np.inf else island.highest,
                    "restarts": island.restarts,
                }
            )
        return {
            "generation": self.generation,
            "islands": islands,
            "hall": self.hall.rows(),
            "judge": self.judge.counters(),
        }

    def restore(self, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Go on from what `tree` and `metadata` returned."""
        self.generation = metadata["generation"]
        self.judge.restore(tree["judge"], metadata["judge"])
        self.hall = Archive.read(tree.get("hall", {}), metadata["hall"])
        self.islands = []
        for number, told in enumerate(metadata["islands"]):
            arrays = tree["islands"][str(number)]
            population = Population(genomes_in(arrays["population"]), np.asarray(arrays["fitness"]))
            archive = Archive.read(arrays.get("elites", {}), told["elites"])
            highest = -np.inf if told["highest"] is None else told["highest"]
            self.islands.append(Island(population, archive, told["improved"], highest, told["restarts"]))
