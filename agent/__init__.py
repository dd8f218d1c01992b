"""vision-ingest: delivers footage of third-party vehicle cameras to the Cartrack Vision API, clip by clip."""

__version__ = "0.1.0"
