"""What can be wrong with a database of rules."""


class StoreError(ValueError):
    """Something is wrong with a database of rules or with a spool; the message names it."""


class AwayError(StoreError):
    """The database cannot serve now: no server, no disk space, too many clients. Later it may."""


class MissingError(StoreError):
    """There is no database of rules in this place."""


class SchemaVersionError(StoreError):
    """The tables are those of another version of this library."""


class DamagedError(StoreError):
    """What was read cannot be what was written."""
