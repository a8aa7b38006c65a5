"""The catalogue of learning tests: those of this library, and of installed packages."""

from collections.abc import Sequence
from typing import Any

from vsml.battery.abilities import ABILITIES
from vsml.battery.learning_test import LearningTest
from vsml.registry import Registry

LEARNING_TESTS: Registry[Any] = Registry(
    "learning test",
    "vsml.learning_tests",
    {test.name: test for test in ABILITIES},
)
"""Learning tests by name: each a `LearningTest`, or a function without arguments that returns one."""


def learning_test(name: str) -> LearningTest:
    """Return a test by its name, by that of an entry point, or by `package.module:Name`.

    Raises:
        ValueError: there is none, or it is no learning test.
    """
    found = LEARNING_TESTS.resolve(name)
    made = found if isinstance(found, LearningTest) else found()
    if not isinstance(made, LearningTest):
        raise ValueError(f"{name}: got a {type(made).__name__}, expected a LearningTest")
    return made


def learning_tests(tests: Sequence[str] = (), tags: Sequence[str] = ()) -> tuple[LearningTest, ...]:
    """Return the tests that are named or have one of the tags; all, if neither is given.

    Raises:
        ValueError: there is no test of that name, or none with that tag.
    """
    every = tuple(learning_test(name) for name in LEARNING_TESTS.names())
    if not tests and not tags:
        return every
    known = sorted({tag for test in every for tag in test.tags})
    for tag in tags:
        if tag not in known:
            raise ValueError(f"tags: got {tag!r}, expected some of {', '.join(known)}")
    chosen = {name: learning_test(name) for name in tests}
    tagged = {test.name: test for test in every if set(test.tags) & set(tags)}
    return tuple((chosen | tagged).values())
