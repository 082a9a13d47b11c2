"""One image or a batch, certified here and now: the same numbers as a job's, without files."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from smoothcert.api.images import ImageLike, as_batch, encoded
from smoothcert.datasets import Pair, UnitSpec
from smoothcert.encoders import Encoder
from smoothcert.errors import JobError
from smoothcert.job import Job
from smoothcert.job.explaining import explain
from smoothcert.store.tables.rows import rows_to_table
from smoothcert.work.certify.task import CertifyWorker
from smoothcert.work.inputs import Inputs, load_checked
from smoothcert.work.task import Assignment

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_OF_RUNS = ("run_id", "unit_id", "attempt", "source_uri")
"""Columns that say something only of a run's rows."""
_SHOWN = (
    "pair_id", "status", "predicted_label", "certified_radius", "smooth_norm_lcb", "robustness_score_lcb",
    "angular", "fcsb", "error_message",
)  # fmt: skip
_SLOTS = 8


class Certificates:
    """What is certified of some images, in their order.

    ``found["angular"]`` is a column as a list, ``found[0]`` the first image's row as a mapping; columns are those of
    the table ``certificates`` (schemas/certificates.v1.json), and NULL is None. An image that cannot be certified has
    ``status`` quarantined and says why in ``error_message``.

    Attributes:
        radii: the l2 radii ([0, 1] pixels) of list columns such as ``angular`` and ``fcsb``.
        cosines: those of ``angular_radius`` and ``fcsb_radius``.
        sigma, alpha: of the noise, and the failure probability of each certificate.
    """

    def __init__(self, table: pa.Table, job: Job) -> None:
        self._table = table
        self.radii = job.certify.radii
        self.cosines = job.certify.cosines
        self.sigma = job.certify.sigma
        self.alpha = job.certify.alpha

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, key: str | int) -> Any:
        """A column by name, or a row by number."""
        if isinstance(key, str):
            if key not in self._table.column_names:
                raise KeyError(f"no column '{key}'; there are {', '.join(self._table.column_names)}")
            return self._table[key].to_pylist()
        return list(self)[key]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._table.to_pylist())

    def to_arrow(self) -> pa.Table:
        """All columns."""
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """All columns."""
        return self._table.to_pandas()

    def __repr__(self) -> str:
        head = f"{len(self)} image{'' if len(self) == 1 else 's'}, sigma {self.sigma:g}, alpha {self.alpha:g}"
        return "\n".join([head, *(f"  {'  '.join(_cells(row))}" for row in self)])

    def _repr_html_(self) -> str:
        names = "".join(f"<th>{name}</th>" for name in _SHOWN if name in self._table.column_names)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(_show(row[name]))}</td>" for name in _SHOWN if name in row)
            + "</tr>"
            for row in self
        )
        caption = (
            f"sigma {self.sigma:g}, alpha {self.alpha:g}; radii {', '.join(f'{r:g}' for r in self.radii)}"
        )
        return f"<table><caption>{caption}</caption><tr>{names}</tr>{rows}</table>"


def certify(
    images: ImageLike | Sequence[ImageLike],
    encoder: str | Encoder,
    *,
    sigma: float,
    draws: int,
    texts: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    pair_ids: Sequence[str] | None = None,
    **certify: Any,
) -> Certificates:
    """Certify one image or several by Gaussian smoothing, in this process.

    The numbers are those that a job would write for the same pixels, encoder, settings, ``seed`` and pair ids: noise
    belongs to them, not to where it is drawn. (A job's ``encoder.chunk`` orders its noise; here it is the default.)

    Args:
        images: PIL images, paths, bytes of image files, or pixels (3, H, W): uint8, or floats k/255 in [0, 1]; one, or
            a batch. Before any normalisation: the encoder prepares them as it prepares those of a data set.
        encoder: as ``encoder.model`` in a job (a directory, URL, hub id, or ``bundled:digits-clip``), or an encoder
            that was loaded before (``smoothcert.load_encoder``), which spares loading it again.
        sigma: standard deviation of the noise, in units of [0, 1] pixels.
        draws: fresh draws an image, after those that choose directions (``pilot_draws``).
        texts: classes for zero-shot classification, as the encoder reads them ("a photo of a cat"); none: no class is
            certified.
        captions: one text an image, whose similarity is certified.
        pair_ids: names of the images, which key their noise; default "0", "1", ...
        **certify: other fields of a job's section ``certify``: radii, cosines, alpha, seed, pilot_draws, method,
            targets, rivals.

    Raises:
        JobError: an argument is wrong; the message names it and the remedy.
        EncoderError: the encoder cannot be loaded, or fails.
    """
    batch = as_batch(images)
    names = [str(i) for i in range(len(batch))] if pair_ids is None else list(pair_ids)
    for what, given in (("captions", captions), ("pair_ids", pair_ids)):
        if given is not None and (isinstance(given, str) or len(given) != len(batch)):
            raise JobError(f"{what} are not one for each of {len(batch)} images", remedy="give one an image")
    if not batch or len(set(names)) < len(names):
        raise JobError("no images, or two with one name", remedy="give images, and pair_ids that differ")
    job = _job(encoder, sigma, draws, texts, captions is not None, certify)
    loaded = load_checked(job) if isinstance(encoder, str) else encoder
    pairs = [
        Pair(name, "", encoded(image, i), (captions[i],) if captions is not None else (), None, None)
        for i, (name, image) in enumerate(zip(names, batch, strict=True))
    ]
    return Certificates(_measure(job, loaded, pairs), job)


def _measure(job: Job, encoder: Encoder, pairs: list[Pair]) -> pa.Table:
    worker = CertifyWorker(Inputs(job, encoder))
    try:
        assignment = Assignment("", UnitSpec("u0", "", 0, len(pairs)), pairs)
        rows = worker.rows("u0", list(worker.run(iter([assignment]))))
    finally:
        worker.close()
    places = {pair.pair_id: place for place, pair in enumerate(pairs)}
    rows.sort(key=lambda row: places[row.pair_id])
    return rows_to_table(rows, run_id="", attempt="").drop_columns(list(_OF_RUNS))


def _job(
    encoder: str | Encoder,
    sigma: float,
    draws: int,
    texts: Sequence[str],
    has_captions: bool,
    more: Mapping[str, Any],
) -> Job:
    if isinstance(texts, str):
        raise JobError(f"texts={texts!r} is one text", remedy="give a list of at least two")
    data = {
        "name": "here",
        "data": {"format": "parquet", "uri": "here", "columns": {} if has_captions else {"caption": None}},
        "encoder": {"model": encoder if isinstance(encoder, str) else "here", "slots": _SLOTS},
        "certify": {**more, "sigma": sigma, "max_draws": draws},
    }
    if texts:
        data["zero_shot"] = {"labels": tuple(texts), "prompts": ("{label}",)}
    try:
        return Job.model_validate(data)
    except ValidationError as exc:
        raise explain(exc, "smoothcert.certify") from exc


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_show(row[name])}" for name in _SHOWN if row.get(name) is not None]


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_show, value)) + "]"
    return "-" if value is None else str(value)
