"""Hostile input for every parser of external data; the same seed gives the same input."""
