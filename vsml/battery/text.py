"""A text to be read character by character: the King James Bible, from the beginning of Genesis.

`genesis.txt` is in the public domain: the translation of 1611 in its text of 1769, as Project Gutenberg has
it (ebook 10). Numbers of verses are left out.
"""

import functools
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "genesis.txt"

ALPHABET = " abcdefghijklmnopqrstuvwxyz"
"""The symbols of the text: letters without case; all that is no letter is a blank, of which one stays."""


@functools.cache
def symbols() -> np.ndarray:
    """Return the text as numbers of symbols, int32 [characters]."""
    text = FILE.read_text(encoding="utf-8").lower()
    letters = [char if char in ALPHABET else " " for char in text]
    words = "".join(letters).split()
    clean = " ".join(words)
    return np.array([ALPHABET.index(char) for char in clean], np.int32)
