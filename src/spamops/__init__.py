"""spamops: wake a shelved server, run its spam check, shelve it again, whatever happened in between."""

__version__ = "0.1.0"
