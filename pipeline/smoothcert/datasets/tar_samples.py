"""Samples of an archive: neighbouring members of one key, as WebDataset groups them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from smoothcert.datasets.tar_members import Member

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT_EXTENSIONS = ("txt", "json", "cls")


@dataclass(slots=True)
class Sample:
    """One sample: its members by extension, in archive order."""

    key: str
    start: int
    members: dict[str, Member] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def image(self) -> Member | None:
        """The first member that is an image by its name."""
        return next((m for ext, m in self.members.items() if ext in IMAGE_EXTENSIONS), None)

    @property
    def has_caption(self) -> bool:
        """Whether a member may hold the caption."""
        return "txt" in self.members or "json" in self.members

    @property
    def complete(self) -> bool:
        """Whether there is an image and something that may hold its caption."""
        return self.image is not None and self.has_caption


def split_key(name: str) -> tuple[str, str]:
    """(key, extension): the path up to the first dot of its last part, and the rest in lower case."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def group_members(members: Iterable[Member]) -> Iterator[Sample]:
    """Samples in order.

    Members of other extensions are noted in ``others`` and otherwise ignored, as are names without a key. If
    the archive was cut before a member's name, the sample before it takes the problem if it still lacked
    something; otherwise the cut makes a sample of its own, named by its offset.
    """
    current: Sample | None = None
    for member in members:
        if not member.name:
            if current is None or current.complete:
                if current is not None:
                    yield current
                current = Sample(f"offset-{member.start}", member.start)
            current.problem = member.problem
            continue
        key, extension = split_key(member.name)
        known = extension in IMAGE_EXTENSIONS or extension in TEXT_EXTENSIONS
        if not known or not key or key.endswith("/"):
            if current is not None and key == current.key:
                current.others.append(extension)
            continue
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = Sample(key, member.start)
        current.members.setdefault(extension, member)
        if member.problem and not current.problem:
            current.problem = f"member '{member.name}': {member.problem}"
    if current is not None:
        yield current
