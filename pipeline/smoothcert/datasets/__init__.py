"""Sources of image-text pairs, image decoding, and the bundled and synthetic data."""

from smoothcert.datasets.digits import DIGIT_NAMES, digit_caption, load_digits_pairs

__all__ = ["DIGIT_NAMES", "digit_caption", "load_digits_pairs"]
