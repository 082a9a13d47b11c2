"""Small pictures of the shown pairs: read again from the source, and taken from the examples that attacks kept."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from smoothcert.datasets import UnitSpec
from smoothcert.datasets.decode import decode_image
from smoothcert.datasets.opening import open_source
from smoothcert.errors import SmoothcertError
from smoothcert.store import RunDirectory
from smoothcert.work.attack.examples import example_folder

_SIDE = 112
"""Longest side of a picture on the page."""
_MOST_FILES = 64
"""Source files that are opened for pictures; beyond that a page would take too long."""

Pictures = dict[str, dict[str, str]]


def source_pictures(run: RunDirectory, rows: Sequence[dict[str, Any]]) -> tuple[Pictures, list[str]]:
    """The image of each row as it is, and one noisy copy of it, as data URIs.

    The noisy copy is an illustration: noise of the job's sigma on the image cut to the size that the encoder saw, not
    one of the run's own draws.

    Args:
        run: the run directory.
        rows: with pair_id, unit_id, source_uri, input_height and input_width.

    Returns:
        Pictures by pair id, and one line for each file that could not be read.
    """
    job = run.info.job
    wanted: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        wanted.setdefault(row["source_uri"], {})[row["pair_id"]] = row
    found: Pictures = {}
    problems: list[str] = []
    try:
        plan = run.plan()
        source = open_source(job.data)
    except (SmoothcertError, ImportError) as exc:
        return found, [f"no pictures: {exc}"]
    for uri, pairs in list(wanted.items())[:_MOST_FILES]:
        left: dict[str, dict[str, Any]] = dict(pairs)
        try:
            for unit in _units(plan, uri, {row["unit_id"] for row in pairs.values()}):
                for pair in source.read(unit, only=set(left)):
                    known = left.pop(pair.pair_id) if pair.pair_id in left else None
                    if known is not None and pair.image is not None:
                        found[pair.pair_id] = _pictures(
                            pair.image, known, job.certify.sigma, job.data.max_pixels
                        )
                if not left:
                    break
        except (SmoothcertError, OSError) as exc:
            problems.append(f"no pictures from '{uri}': {exc}")
    if len(wanted) > _MOST_FILES:
        problems.append(f"pictures of {_MOST_FILES} of {len(wanted):,} source files only")
    return found, problems


def _units(plan: Sequence[UnitSpec], uri: str, unit_ids: set[str]) -> Iterator[UnitSpec]:
    """The units that may hold some pairs of a file, those that rows name first."""
    of_file = [unit for unit in plan if unit.source_uri == uri]
    yield from sorted(of_file, key=lambda unit: unit.unit_id not in unit_ids)


def _pictures(data: bytes, row: dict[str, Any], sigma: float, max_pixels: int) -> dict[str, str]:
    try:
        image = decode_image(data, max_pixels=max_pixels)
    except SmoothcertError:
        return {}
    made = {"clean": _data_uri(image)}
    if row["input_height"] and row["input_width"]:
        size = (int(row["input_width"]), int(row["input_height"]))
        x = np.asarray(ImageOps.fit(image, size), dtype=np.float64) / 255
        noisy = x + np.random.default_rng(0).normal(0, sigma, x.shape)
        made["noisy"] = _data_uri(Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)))
    return made


def attack_pictures(run: RunDirectory, pair_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The strongest kept example of each pair: clean, attacked, and the difference, amplified by the factor given.

    Only attacks with ``keep`` have examples; a pair without one is left out, and so is an example that cannot be read.
    """
    wanted = set(pair_ids)
    found: dict[str, dict[str, Any]] = {}
    for folder, entry in _examples(run):
        pair_id = str(entry["pair_id"])
        if pair_id not in wanted or entry["margin"] >= found.get(pair_id, {}).get("margin", np.inf):
            continue
        try:
            with np.load(
                io.BytesIO(run.storage.read(f"{folder}/{entry['arrays']}")), allow_pickle=False
            ) as arrays:
                clean, attacked = arrays["clean"] / 255.0, np.asarray(arrays["attacked"], dtype=np.float64)
        except (SmoothcertError, OSError, ValueError, KeyError):
            continue
        delta = attacked - clean
        factor = 0.5 / max(float(np.abs(delta).max()), 1e-12)
        _, attack, where = folder.split("/")
        found[pair_id] = {
            "margin": entry["margin"],
            "attack": attack,
            "where": where,
            "l2": entry["perturbation_l2"],
            "factor": round(factor, 2),
            "attacked": _data_uri(_image(attacked)),
            "difference": _data_uri(_image(0.5 + factor * delta)),
        }
    return found


def _examples(run: RunDirectory) -> Iterator[tuple[str, dict[str, Any]]]:
    for section in run.info.job.attacks:
        for subject in section.subjects:
            for budget in section.budgets if section.keep else ():
                folder = example_folder(section, subject, budget)
                index = run.read_document(f"{folder}/index.json")
                for entry in json.loads(index) if index else ():
                    yield folder, entry


def _image(pixels: Any) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


def _data_uri(image: Image.Image) -> str:
    """A picture of at most ``_SIDE`` pixels: small ones losslessly, others as JPEG."""
    small = image.convert("RGB")
    if max(small.size) > _SIDE:
        small.thumbnail((_SIDE, _SIDE))
        kind, options = "JPEG", {"quality": 82}
    else:
        kind, options = "PNG", {}
    buffer = io.BytesIO()
    small.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
