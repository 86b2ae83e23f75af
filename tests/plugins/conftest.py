"""Plugins run their own tests where they are installed."""

collect_ignore = ["image_segmentation"]
