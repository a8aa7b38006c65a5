"""A search that is small enough for tests: settings, and a rule to start from."""

from vsml.rules import read_rule
from vsml.search.genome import genome_of
from vsml.search.judging import Judging
from vsml.search.settings import Breeding, Room

ROOM = Room(slots=8, constants=6, initial=12, operators=24)
JUDGING = Judging(learning=("S3",), seeds=2, gates=(4, 12), gates_hurdle=-0.9)
BREEDING = Breeding(
    islands=2,
    population=16,
    children=16,
    tournament=4,
    migration=2,
    migrants=2,
    patience=3,
    tune=2,
    tune_rounds=1,
)
DELTA = genome_of(read_rule("delta"), ROOM.capacity)
