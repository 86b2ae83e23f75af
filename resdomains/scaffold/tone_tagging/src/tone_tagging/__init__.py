"""A task for `resdomains`: how high a tone is."""
