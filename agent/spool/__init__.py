"""Clips wait here: durable from the moment `take_in` returns until an explicit verdict lets them go."""

from agent.spool.admission import Taken, Trouble
from agent.spool.disk_budget import GivenUp
from agent.spool.recovery import HOLDING, Recovery
from agent.spool.spool import Spool

__all__ = ["HOLDING", "GivenUp", "Recovery", "Spool", "Taken", "Trouble"]
