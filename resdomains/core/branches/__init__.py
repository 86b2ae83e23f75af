"""What a block computes beside its shortcut."""
