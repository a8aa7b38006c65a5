"""What loading data raises."""


class DataError(ValueError):
    """A data set's files are not what they should be."""


class UnknownDataSetError(DataError):
    """A name that no data set has.

    Attributes:
        expected: what could have been named, as text.
    """

    def __init__(self, name: str, expected: str) -> None:
        self.expected = expected
        super().__init__(f"dataset: got {name!r}, expected {expected}")


class MissingDataError(DataError, FileNotFoundError):
    """A data set's file is not there and could not be downloaded."""
