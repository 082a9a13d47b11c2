"""Certified robustness of image-text encoders over whole datasets."""

__version__ = "0.2.0"
