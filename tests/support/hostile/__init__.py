"""Hostile input for every reader of bytes from outside, made from a seed: the same seed gives the same input."""
