"""The search for local rules: draw them, change them, and judge them."""

from vsml.search.drawing import draw_genomes
from vsml.search.genome import Genome, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.judging import Funnel, Judge, Judging, Survivor
from vsml.search.mutation import mutate_genomes
from vsml.search.settings import Drawing, Mutations, Room
from vsml.search.survey import Surveyed, survey

__all__ = [
    "Drawing",
    "Funnel",
    "Genome",
    "Judge",
    "Judging",
    "Mutations",
    "Room",
    "Surveyed",
    "Survivor",
    "draw_genomes",
    "genome_of",
    "mutate_genomes",
    "rule_of",
    "stack_genomes",
    "survey",
    "unstack_genomes",
]
