"""Small tasks: AND, OR, XOR and a + b, with the answer as a value; what a local rule is tried on first."""

from vsml.tasks.data.generator import Generator
from vsml.tasks.data.small_tasks import NUM_INPUTS, TASKS
from vsml.types import Array, Values


def _generator(
    name: str,
    task_name: str,
) -> Generator:
    """Return a task of two numbers as a source of examples: inputs [n, 1, 3, 1] and targets [n, 1]."""

    def draw(key: Array, n: int, size: int) -> tuple[Array, Array]:
        del size
        x, targets = TASKS[task_name].draw(n, key)
        return x[:, None, :, None], targets

    return Generator(draw=draw, name=name, outputs=Values(1), image_shape=(1, NUM_INPUTS, 1))


LOGIC_AND = _generator("logic_and", "and")
LOGIC_OR = _generator("logic_or", "or")
LOGIC_XOR = _generator("logic_xor", "xor")
A_PLUS_B = _generator("a_plus_b", "sum")
