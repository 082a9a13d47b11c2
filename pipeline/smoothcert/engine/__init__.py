"""From decoded pairs to certificate rows, on one device. No Ray, no result files."""

from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.decoding import DecodeAhead, DecodedPair
from smoothcert.engine.engine import Engine
from smoothcert.engine.read_texts import check_captions, check_pool, check_prompts
from smoothcert.engine.records import Failure, Measurement, PairResult
from smoothcert.engine.rows import RowMaker
from smoothcert.engine.smoothed_encoder import SmoothedEncoder
from smoothcert.engine.texts import Texts, encode_texts

__all__ = [
    "CertificateRow",
    "DecodeAhead",
    "DecodedPair",
    "Engine",
    "Failure",
    "Measurement",
    "PairResult",
    "RowMaker",
    "SmoothedEncoder",
    "Texts",
    "check_captions",
    "check_pool",
    "check_prompts",
    "encode_texts",
]
