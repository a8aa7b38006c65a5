"""What loading data raises."""


class DataError(ValueError):
    """A data set's files are not what they should be."""


class MissingDataError(DataError, FileNotFoundError):
    """A data set's file is not there and could not be downloaded."""
