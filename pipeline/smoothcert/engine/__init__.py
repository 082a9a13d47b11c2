"""From decoded pairs to certificate rows, on one device. No Ray, no result files."""

from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.decoding import DecodeAhead, DecodedPair
from smoothcert.engine.engine import Engine
from smoothcert.engine.records import Failure, Measurement, Outcome
from smoothcert.engine.rows import RowMaker
from smoothcert.engine.texts import Texts, encode_texts

__all__ = [
    "CertificateRow",
    "DecodeAhead",
    "DecodedPair",
    "Engine",
    "Failure",
    "Measurement",
    "Outcome",
    "RowMaker",
    "Texts",
    "encode_texts",
]
