"""Media files: reading, checking and cutting them. Knows files, and no policy."""
