"""The search for local rules: draw them, change them, judge them, and breed them."""

from vsml.search.breeding import Breeder
from vsml.search.damage import damaged
from vsml.search.drawing import draw_genomes
from vsml.search.elites import Archive, Elite, Scores
from vsml.search.funnel import Funnel
from vsml.search.generation import Bred, Generation
from vsml.search.genome import Genome, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.judge import Judge, Rated, Survivor
from vsml.search.judging import Judging
from vsml.search.mutation import mutate_genomes
from vsml.search.settings import Breeding, Drawing, Mutations, Room, Start
from vsml.search.survey import Surveyed, drawn, near, survey

__all__ = [
    "Archive",
    "Bred",
    "Breeder",
    "Breeding",
    "Drawing",
    "Elite",
    "Funnel",
    "Generation",
    "Genome",
    "Judge",
    "Judging",
    "Mutations",
    "Rated",
    "Room",
    "Scores",
    "Start",
    "Surveyed",
    "Survivor",
    "damaged",
    "draw_genomes",
    "drawn",
    "genome_of",
    "mutate_genomes",
    "near",
    "rule_of",
    "stack_genomes",
    "survey",
    "unstack_genomes",
]
