"""Durable storage for clips: what `take_in_group` returned survives everything until an explicit verdict."""

from agent.spool.admission import NotTaken, Taken
from agent.spool.disk_budget import Eviction
from agent.spool.queries import STORED_STATES
from agent.spool.recovery import Recovery
from agent.spool.spool import Spool

__all__ = ["STORED_STATES", "Eviction", "NotTaken", "Recovery", "Spool", "Taken"]
