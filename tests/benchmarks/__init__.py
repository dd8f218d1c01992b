"""What it costs, measured against what a user would otherwise take. Never asserted in tests: `make bench` reports."""
