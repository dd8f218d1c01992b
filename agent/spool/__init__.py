"""Clips wait here: durable from the moment `take_in` returns until an explicit verdict lets them go."""

from agent.spool.admission import NotTaken, Taken
from agent.spool.disk_budget import Eviction
from agent.spool.recovery import STORED_STATES, Recovery
from agent.spool.spool import Spool

__all__ = ["STORED_STATES", "Eviction", "NotTaken", "Recovery", "Spool", "Taken"]
