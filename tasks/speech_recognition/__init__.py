"""Speech recognition: the words that are spoken in a recording."""
