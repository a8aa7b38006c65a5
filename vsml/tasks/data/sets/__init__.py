"""Data sets of this library, one file each, and the registry of all."""

from collections.abc import Callable

from vsml.registry import Registry
from vsml.tasks.data.dataset import Dataset
from vsml.tasks.data.entry import Entry
from vsml.tasks.data.generator import Generator
from vsml.tasks.data.sets.cifar10 import CIFAR10
from vsml.tasks.data.sets.digits import DIGITS
from vsml.tasks.data.sets.emnist import (
    EMNIST_BALANCED,
    EMNIST_BYCLASS,
    EMNIST_BYMERGE,
    EMNIST_DIGITS,
    EMNIST_LETTERS,
    EMNIST_MNIST,
)
from vsml.tasks.data.sets.fashion_mnist import FASHION_MNIST
from vsml.tasks.data.sets.kmnist import KMNIST
from vsml.tasks.data.sets.linear_map import LINEAR_MAP
from vsml.tasks.data.sets.mnist import MNIST
from vsml.tasks.data.sets.noisy_functions import NOISY_FUNCTIONS
from vsml.tasks.data.sets.omniglot import OMNIGLOT
from vsml.tasks.data.sets.random_labels import RANDOM
from vsml.tasks.data.sets.small_tasks import A_PLUS_B, LOGIC_AND, LOGIC_OR, LOGIC_XOR
from vsml.tasks.data.sets.sums import SUM
from vsml.tasks.data.sets.svhn import SVHN
from vsml.tasks.data.sets.tables import TABLES
from vsml.tasks.data.sets.tanh_network import TANH_NETWORK
from vsml.tasks.data.sets.usps import USPS

Origin = Entry | Generator | Callable[[str], Dataset]
"""What a data set is made from: files that are published, a generator, or a function of the subset."""

# Checksums are the publishers'; those of unpacked files and of content were taken from files that have them.
# Mean and std are those of the 2021 runs where they had the data set, the same for both halves.
DATASETS: Registry[Origin] = Registry(
    "data set",
    "vsml.datasets",
    {
        "mnist": MNIST,
        "fashion_mnist": FASHION_MNIST,
        "kmnist": KMNIST,
        "emnist_byclass": EMNIST_BYCLASS,
        "emnist_bymerge": EMNIST_BYMERGE,
        "emnist_balanced": EMNIST_BALANCED,
        "emnist_letters": EMNIST_LETTERS,
        "emnist_digits": EMNIST_DIGITS,
        "emnist_mnist": EMNIST_MNIST,
        "cifar10": CIFAR10,
        "svhn": SVHN,
        "omniglot": OMNIGLOT,
        "usps": USPS,
        "digits": DIGITS,
        "emnist": EMNIST_BYCLASS,
        "random": RANDOM,
        "sum": SUM,
        "tables": TABLES,
        "linear_map": LINEAR_MAP,
        "tanh_network": TANH_NETWORK,
        "noisy_functions": NOISY_FUNCTIONS,
        "logic_and": LOGIC_AND,
        "logic_or": LOGIC_OR,
        "logic_xor": LOGIC_XOR,
        "a_plus_b": A_PLUS_B,
    },
)
