"""A simulated Vision API with fault injection, a simulated camera, and the demo. `agent` never imports this package."""
