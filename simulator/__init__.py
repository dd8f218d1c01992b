"""A Vision API for the bench: what the contract says, and faults on demand. The daemon never imports it."""
