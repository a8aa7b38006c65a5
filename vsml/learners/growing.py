"""Outputs that come while a learner learns: what it has learned stays, and new outputs start fresh."""

from typing import Protocol, runtime_checkable

from vsml.types import Array, State


class FixedOutputsError(ValueError):
    """A learner cannot get more outputs than it was built with; the message says what to do."""


@runtime_checkable
class GrowsOutputs(Protocol):
    """A learner whose outputs do not share what they have learned, so that there can be more of them.

    Its meta-parameters do not depend on the number of outputs.
    """

    def with_new_outputs(
        self,
        state: State,
        fresh: State,
        kept: Array,
    ) -> State:
        """Return a state of this learner that goes on from one of a learner with as many outputs or fewer.

        Args:
            state: of a learner that differs from this one in the number of outputs only, K of them.
            fresh: of this learner, with C >= K outputs.
            kept: which of the K outputs keep what they have learned, bool [K]; the others, and those from K
                on, start fresh.

        Raises:
            FixedOutputsError: its settings do not allow it.
        """


def check_grows(learner: object) -> GrowsOutputs:
    """Return a learner that can get more outputs.

    Raises:
        FixedOutputsError: it cannot.
    """
    if isinstance(learner, GrowsOutputs):
        return learner
    raise FixedOutputsError(
        f"{type(learner).__name__}: got a class that is new, expected those known from the start, as the "
        "number of outputs of this learner is fixed; name all classes at the first call, some of them as a "
        "reserve, or learn by VSML with a dense last layer"
    )
