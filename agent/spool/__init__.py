"""Clips wait here: durable from the moment `take_in` returns until an explicit verdict lets them go."""

from agent.spool.recovery import HOLDING, Recovery
from agent.spool.space import GivenUp
from agent.spool.spool import Spool, Taken

__all__ = ["HOLDING", "GivenUp", "Recovery", "Spool", "Taken"]
