"""The text of a first job file, with comments that say what each choice means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from smoothcert.job.encoder import names_code

_ANSWERER = "llava-hf/llava-1.5-7b-hf"
_BUNDLED_ANSWERER = "bundled:shapes-llava"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a first job file says.

    Attributes:
        name: of the job.
        format, uri: of the data.
        image, caption, label: its columns; ``caption`` None where it has none.
        columns: what was seen there, for a comment.
        encoder: as ``encoder.model``.
        sigma: of the noise.
        targets: (certificate, radius, cosine or None).
        labels: classes, for zero-shot classification; fewer than two: none.
        questions: file of questions about the images, and its format; None for none.
    """

    name: str
    format: str
    uri: str
    image: str | None
    caption: str | None
    label: str | None
    columns: Sequence[str]
    encoder: str
    sigma: float
    targets: Sequence[tuple[str, float, float | None]]
    labels: Sequence[str] = ()
    questions: tuple[str, str] | None = None

    def text(self) -> str:
        """YAML; every text in it is quoted."""
        return (
            "\n".join(
                [
                    *self._data(),
                    *self._encoder(),
                    *self._certify(),
                    *self._classes(),
                    *self._answer(),
                    *self._rest(),
                ]
            )
            + "\n"
        )

    def _data(self) -> list[str]:
        named = [
            f"{role}: {_quoted(name)}"
            for role, name in (("image", self.image), ("caption", self.caption), ("label", self.label))
            if name != role
        ]
        seen = f"  # columns: {'; '.join(_one_line(each) for each in self.columns)}"
        return [
            f"name: {_quoted(self.name)}",
            "data:",
            f"  format: {self.format}",
            f"  uri: {_quoted(self.uri)}                # a file, folder, glob or list of them, on any fsspec store",
            *([seen] if self.columns else []),
            *([f"  columns: {{{', '.join(named)}}}"] if named else []),
            "  # limit: 100                   # only the first pairs, to try it out",
        ]

    def _encoder(self) -> list[str]:
        return [
            "encoder:",
            f"  model: {_quoted(self.encoder)}           # directory, URL, hub id, or your own module:callable",
            "  # revision: <commit>           # pin it for a hub id",
            "  # dtype: bfloat16              # on a GPU; part of what is certified",
        ]

    def _certify(self) -> list[str]:
        lines = [
            "certify:",
            f"  sigma: {self.sigma!r}                  # noise, in units of [0,1] pixels: larger certifies farther, of "
            "a blurrier encoder",
            "  alpha: 0.001                   # each certificate is wrong with at most this probability",
            "  max_draws: 1000                # noisy copies of each image, at most",
        ]
        if self.targets:
            lines.append("  targets:                       # drawing stops when all are decided")
        for certificate, radius, cosine in self.targets:
            more = "" if cosine is None else f", cosine: {cosine!r}"
            lines.append(f"    - {{certificate: {certificate}, radius: {radius!r}{more}}}")
        return lines

    def _classes(self) -> list[str]:
        if len(self.labels) < 2:
            return ["# zero_shot:                     # to certify classes too", "#   labels: [cat, dog]"]
        needs = "            # needs encode_text of your encoder; remove it where there is none"
        return [
            f"zero_shot:{needs if names_code(self.encoder) else ''}",
            f"  labels: [{', '.join(map(_quoted, self.labels))}]",
            '  prompts: ["a photo of a {label}"]   # say it as the encoder was trained; several are averaged',
        ]

    def _answer(self) -> list[str]:
        if self.questions is None:
            return []
        uri, format = self.questions
        model = self.encoder if self.encoder == _BUNDLED_ANSWERER else _ANSWERER
        more = "  # annotations: answers.json    # of VQA v2, whose answers are a file of their own"
        columns = (
            "  # columns: {question: ..., answers: ..., pair: ...}   # where the columns are not called so"
        )
        return [
            "answer:",
            f"  model: {_quoted(model)}   # directory, hub id, or with endpoint the name that a service knows",
            f"  questions: {_quoted(uri)}",
            f"  format: {format}",
            *([more] if format == "vqa" else []),
            *([columns] if format == "parquet" else []),
            "  subjects: [bare, vote]         # vote: certified; each of its draws is an answer, smoothcert plan says "
            "what that costs",
            "  vote: {pilot_draws: 16, max_draws: 100}",
        ]

    def _rest(self) -> list[str]:
        return [
            "output:",
            "  runs: runs                     # where run directories go, on any fsspec store",
            "# executor: {kind: ray, workers: 8}   # on a cluster; docs/cluster.md",
        ]


def _quoted(text: str | None) -> str:
    return "null" if text is None else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
