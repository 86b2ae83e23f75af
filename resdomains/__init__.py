"""One residual block, five domains: residual networks for images, boxes, speech, text and control."""

__version__ = "0.1.0"
