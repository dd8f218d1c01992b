"""Benchmarks against the tools that a user would take instead. Reported by `make bench`, never asserted in tests."""
