"""``smoothcert init``: a first job file, from a look at the data."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.terminal import Terminal, count_of
from smoothcert.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothcert.datasets.guessing import Guess

_TARGET = re.compile(r"(\w+)(?:>=(-?[\d.]+))?@([\d.]+)")
_MOST_LABELS = 1000
_ENCODER = "openai/clip-vit-base-patch32"


def init(
    data: Annotated[
        str | None,
        typer.Argument(
            help="The pairs: a file, folder or glob; a path or URL. Asked for where missing.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Directory, URL, hub id, or bundled:digits-clip.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Noise in units of [0,1] pixels.")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="What to decide, e.g. 'angular>=0.8@0.25' or 'class@0.25'. Repeatable."),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            help="Questions about the images, for a multimodal model: a file, or a folder of classes."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job; default from the data.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The job file; must be new.")] = Path(
        "job.yaml"
    ),
) -> None:
    """Write a commented job file that validates, from a look at the data and a few answers.

    Format, columns and classes are guessed from the files and said; correct them in the file. Next comes
    'smoothcert plan'.
    """
    from smoothcert.datasets.guessing import guess_data
    from smoothcert.job.draft import Draft
    from smoothcert.job.reading import parse_job

    if output.exists():
        raise JobError(f"--output '{output}' is there already", remedy="name another file, or remove it")
    terminal = Terminal()
    uri = data or _ask("data: file, folder, glob or URL of the pairs", "DATA")
    guess = guess_data(uri)
    _say(terminal, guess)
    if guess.image is None:
        raise JobError(
            f"no column of '{uri}' looks like images: {', '.join(guess.columns)}",
            remedy="images are bytes or struct<bytes, path> in Parquet, paths in CSV; see docs/data.md",
        )
    model = encoder or _ask("encoder: directory, URL or hub id", "--encoder", _ENCODER)
    noise = sigma or float(_ask("sigma: noise in units of [0,1] pixels", "--sigma", "0.25"))
    labels = _labels(terminal, guess, uri)
    targets = [_target(each) for each in target or ()]
    _refuse_without_classes(targets, labels, guess)
    draft = Draft(
        name or _name(uri),
        guess.format,
        uri,
        guess.image,
        guess.caption,
        guess.label,
        guess.columns,
        model,
        noise,
        targets,
        labels,
        None if questions is None else (questions, _question_format(terminal, questions)),
    )
    text = draft.text()
    parse_job(text, origin="the job from these answers")  # says what is wrong before anything is written
    output.write_text(text, encoding="utf-8")
    terminal.say(f"wrote      {output}")
    terminal.say(f"next:      smoothcert plan {output}")


def _refuse_without_classes(
    targets: Sequence[tuple[str, float, float | None]], labels: Sequence[str], guess: Guess
) -> None:
    """Raise ``JobError`` where a target is about classes, and the data shows fewer than two."""
    from smoothcert.catalogue.certificates import CATALOGUE

    of_classes = {each.name for each in CATALOGUE if each.quantity.section == "zero_shot"}
    about = [name for name, _, _ in targets if name in of_classes]
    if len(labels) >= 2 or not about:
        return
    place = f"labels found: {', '.join(labels) or 'none'}"
    if guess.columns and guess.label is None:
        place = f"no column is called like labels: {', '.join(guess.columns)}"
    raise JobError(
        f"a target of '{about[0]}' needs two classes or more; {place}",
        remedy="run init without this target (or with 'angular>=0.8@0.125', which needs no classes), then write "
        "zero_shot.labels, data.columns.label and the target into the job file",
    )


def _question_format(terminal: Terminal, uri: str) -> str:
    from smoothcert.datasets.guess_questions import guess_questions

    found = guess_questions(uri)
    terminal.say(f"questions  {found}")
    return found


def _ask(question: str, flag: str, default: str | None = None) -> str:
    if not sys.stdin.isatty():
        if default is None:
            raise JobError(f"{flag} is missing, and nobody can be asked", remedy=f"give {flag}")
        return default
    return str(typer.prompt(question, default=default))


def _say(terminal: Terminal, guess: Guess) -> None:
    terminal.say(f"data       {guess.format}, {count_of(guess.files, 'file')}")
    for kind, count in guess.others:
        terminal.say(f"           beside them {count_of(count, 'file')} like {kind}; not taken")
    if guess.columns:
        terminal.say(f"columns    {', '.join(guess.columns)}")
        chosen = (("image", guess.image), ("caption", guess.caption), ("label", guess.label))
        roles = ", ".join(f"{role}: {column or 'none'}" for role, column in chosen)
        terminal.say(f"taken for  {roles}")


def _labels(terminal: Terminal, guess: Guess, uri: str) -> list[str]:
    """The classes of the data, where it has labels and not too many."""
    from smoothcert.datasets import open_source
    from smoothcert.job import Columns, DataSection

    if guess.label is None:
        return []
    section = DataSection(
        format=guess.format,
        uri=uri,
        columns=Columns(image=guess.image or "image", caption=guess.caption, label=guess.label),
    )
    tally = open_source(section).labels()
    names = sorted(tally.names)
    pairs = sum(tally.names.values()) + tally.missing
    classes = count_of(len(names), "class", "classes")
    terminal.say(f"labels     {classes}; {tally.missing:,} of {pairs:,} pairs without one")
    if len(names) > _MOST_LABELS or any(len(each) > 100 for each in names):
        terminal.say("           too many or too long for classes: zero_shot is left for you to write")
        return []
    return names


def _target(text: str) -> tuple[str, float, float | None]:
    found = _TARGET.fullmatch(text.strip())
    if found is None:
        raise JobError(
            f"--target '{text}' is not a target", remedy="write e.g. 'angular>=0.8@0.25' or 'class@0.25'"
        )
    certificate, cosine, radius = found.groups()
    return certificate, float(radius), None if cosine is None else float(cosine)


def _name(uri: str) -> str:
    stem = re.sub(r"\.\w+$", "", uri.rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] or "job"
