"""Where a job file's own paths lead: models, parts of defences and code, relative to the file that names them.

Looked for beside the job file first, then in the working directory. What is found becomes absolute, so that workers on
the same file system find it whatever their working directory is; what is not there is refused before any work. URLs,
absolute paths, hub ids and bundled models stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from smoothcert.errors import JobError
from smoothcert.job.answer import AnswerSection
from smoothcert.job.attacks import AttackSection
from smoothcert.job.encoder import DefenceSection, EncoderSection, names_code

_HUB_ID = re.compile(r"(hf-hub:)?[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_Parts = TypeVar("_Parts", EncoderSection, DefenceSection)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the paths of a job file lead.

    Attributes:
        folder: of the job file.
        promised: directories whose content is made before the job runs; every path into one of them counts as there.
    """

    folder: Path
    promised: tuple[Path, ...] = ()

    def find(self, value: str) -> Path | None:
        """The absolute path of what is there, beside the job file or in the working directory."""
        for base in (self.folder, Path.cwd()):
            if (base / value).exists():
                return (base / value).resolve()
        made = (Path.cwd() / value).resolve()
        return made if any(made.is_relative_to(place) for place in self.promised) else None


def resolve_encoder(section: EncoderSection, places: Places, field: str = "encoder") -> EncoderSection:
    """The section with absolute paths, where they are paths.

    Args:
        section: as the job file has it.
        places: where they lead.
        field: where the section stands in the job.

    Raises:
        JobError: something that can only be a file is nowhere.
    """
    model = section.model
    if names_code(model):
        model = _find_code(model, places, f"{field}.model")
    elif not _stays(model):
        found = places.find(model)
        if found is None and not _HUB_ID.fullmatch(model):
            raise _nowhere(
                f"{field}.model", model, places, "give a directory, or a hub id of the form owner/name"
            )
        model = model if found is None else str(found)
    return resolve_defence(section.model_copy(update={"model": model}), places, field)


def resolve_defence(section: _Parts, places: Places, field: str) -> _Parts:
    """Likewise, for ``purifier`` and ``mapper``.

    Raises:
        JobError: a file or module is nowhere.
    """
    changed = {}
    for name in ("purifier", "mapper"):
        value = getattr(section, name)
        if value is None or (_stays(value) and not names_code(value)):
            continue
        if names_code(value):
            changed[name] = _find_code(value, places, f"{field}.{name}")
            continue
        found = places.find(value)
        if found is None:
            raise _nowhere(
                f"{field}.{name}",
                value,
                places,
                "name a directory or .safetensors file that smoothcert train wrote",
            )
        changed[name] = str(found)
    return section.model_copy(update=changed)


def resolve_attack(section: AttackSection, places: Places, field: str) -> AttackSection:
    """Likewise, for an attack's surrogates.

    Raises:
        JobError: as for ``resolve_encoder``.
    """
    surrogates = tuple(
        resolve_encoder(surrogate, places, f"{field}.surrogates.{number}")
        for number, surrogate in enumerate(section.surrogates)
    )
    return section.model_copy(update={"surrogates": surrogates})


def resolve_answer(section: AnswerSection, places: Places) -> AnswerSection:
    """Likewise, for the model that answers and the files of questions; an endpoint's model is a name.

    Raises:
        JobError: the model is nowhere.
    """
    changed: dict[str, Any] = {}
    if section.endpoint is None and not _stays(section.model):
        found = places.find(section.model)
        if found is None and not _HUB_ID.fullmatch(section.model):
            raise _nowhere(
                "answer.model", section.model, places, "give a directory, or a hub id like owner/name"
            )
        changed["model"] = section.model if found is None else str(found)
    for name in ("questions", "annotations"):
        value = getattr(section, name)
        if value is not None and not _stays(value):
            found = places.find(value)
            changed[name] = (
                value if found is None else str(found)
            )  # like data, it may be made before the work
    if section.defence is not None:
        changed["defence"] = resolve_defence(section.defence, places, "answer.defence")
    if section.clip_score is not None:
        changed["clip_score"] = resolve_encoder(section.clip_score, places, "answer.clip_score")
    if section.judge is not None and section.judge.encoder is not None:
        judge = resolve_encoder(section.judge.encoder, places, "answer.judge.encoder")
        changed["judge"] = section.judge.model_copy(update={"encoder": judge})
    return section.model_copy(update=changed)


def without_place(value: str) -> str:
    """A path or URL without its folders: what a file holds is known by its digest, wherever it is kept."""
    if _URL.match(value):
        return value.rstrip("/").rpartition("/")[2]
    return Path(value).name if Path(value).is_absolute() else value


def _stays(value: str) -> bool:
    return value.startswith(("bundled:", "~")) or _URL.match(value) is not None or Path(value).is_absolute()


def _find_code(value: str, places: Places, field: str) -> str:
    place, _, attribute = value.rpartition(":")
    file = place if place.endswith(".py") else place.replace(".", "/") + ".py"
    if Path(file).is_absolute():
        found = Path(file) if Path(file).exists() else None
    else:
        found = places.find(file)
    if found is not None:
        return f"{found}:{attribute}"
    if not place.endswith(".py") and _is_installed(place.split(".")[0]):
        return value
    raise _nowhere(
        field, value, places, f"put {file} there, or install the package that holds it on every worker"
    )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that runs as a script has no spec
        return True


def _nowhere(field: str, value: str, places: Places, remedy: str) -> JobError:
    looked_in = " and ".join(
        f"'{place}'" for place in dict.fromkeys((str(places.folder.resolve()), str(Path.cwd())))
    )
    return JobError(f"{field}='{value}' does not exist; looked in {looked_in}", remedy=remedy)
