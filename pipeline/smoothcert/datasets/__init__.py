"""Sources of image-text pairs, image decoding, and the bundled and synthetic data."""

from smoothcert.datasets.decode import decode_image
from smoothcert.datasets.demo import write_demo_data
from smoothcert.datasets.digits import DIGIT_NAMES, digit_caption, load_digits_pairs
from smoothcert.datasets.labels import LabelCount, count_known
from smoothcert.datasets.left_out import LeftOut
from smoothcert.datasets.opening import open_source
from smoothcert.datasets.records import Pair, SourceFile, UnitSpec
from smoothcert.datasets.source import Source
from smoothcert.datasets.synthetic import write_synthetic

__all__ = [
    "DIGIT_NAMES",
    "LabelCount",
    "LeftOut",
    "Pair",
    "Source",
    "SourceFile",
    "UnitSpec",
    "count_known",
    "decode_image",
    "digit_caption",
    "load_digits_pairs",
    "open_source",
    "write_demo_data",
    "write_synthetic",
]
