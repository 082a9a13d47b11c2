"""Certified robustness of image-text encoders over whole datasets."""

__version__ = "0.1.0"
