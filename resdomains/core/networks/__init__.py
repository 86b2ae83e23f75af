"""Whole networks: from a batch to the feature maps of every stage."""
