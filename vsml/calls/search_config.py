"""Settings of `call: search`."""

from pydantic import Field

from vsml.rules.settings import Teaching
from vsml.search.judging import Judging
from vsml.search.settings import Breeding, Drawing, Mutations, Room, Start
from vsml.settings import Positive, Section, Text


class SearchConfig(Section):
    """What `call: search` looks for, and how."""

    generations: Positive = Field(default=1000, description="generations of the whole run")
    solved: Positive | None = Field(
        default=None,
        description="stop when an elite has passed the last stage on so many fresh seeds in a row; null: "
        "do not",
    )
    start: Start = Field(default=Start(), description="what populations begin with")
    breeding: Breeding = Field(default=Breeding(), description="how rules are bred")
    judging: Judging = Field(default=Judging(), description="how rules are judged")
    teaching: Teaching = Field(default=Teaching(), description="how rules are taught")
    drawing: Drawing = Field(default=Drawing(), description="how rules and expressions are drawn")
    mutations: Mutations = Field(default=Mutations(), description="how rules are changed")
    room: Room = Field(default=Room(), description="how large rules may become")
    database: Text | None = Field(
        default=None, description="database of the rules found, by URL or file; null: rules.db of the run"
    )
