"""Footage that the API would not take as it is: cut, repacked or saved from damage with ffmpeg, outside the intake."""
