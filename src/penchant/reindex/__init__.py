"""Changing the model under a running system: another store is made beside the one in use, for the new encoders.

A store that was made from another one is a store that was *set back*: how far the old one covers the log is read
first, its contents after that, and it is noted last. Whoever starts on the new store reads the log from there on, and
applying a record again changes nothing. So nothing is switched within a process, and the old worker serves until the
new one does.
"""

from penchant.reindex.calibrate import calibrate
from penchant.reindex.run import Progress, reindex
from penchant.reindex.tally import Summary

__all__ = ["Progress", "Summary", "calibrate", "reindex"]
