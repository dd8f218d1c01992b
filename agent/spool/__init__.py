"""Clips wait here: durable from the moment `take_in` returns until an explicit verdict lets them go."""

from agent.spool.spool import HOLDING, Recovery, Spool, Taken

__all__ = ["HOLDING", "Recovery", "Spool", "Taken"]
