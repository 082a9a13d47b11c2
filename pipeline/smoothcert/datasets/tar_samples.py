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

    Members of other extensions are noted in ``others`` and otherwise ignored, as are names without a key. Where
    an archive ends without its end mark, the last sample takes the problem, though all of it may be there:
    nothing tells whether a member is missing. Without any sample, one named by its offset does.
    """
    current: Sample | None = None
    strays: list[tuple[str, str]] = []
    for member in members:
        if not member.name:
            current = current or Sample(f"offset-{member.start}", member.start)
            current.problem = current.problem or member.problem
            continue
        key, extension = split_key(member.name)
        known = extension in IMAGE_EXTENSIONS or extension in TEXT_EXTENSIONS
        if not known or not key or key.endswith("/"):
            strays = [stray for stray in strays if stray[0] == key] + [(key, extension)]
            continue
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = Sample(key, member.start)
        current.others += [other for stray, other in strays if stray == key]
        strays = []
        current.members.setdefault(extension, member)
        if member.problem and not current.problem:
            current.problem = f"member '{member.name}': {member.problem}"
    if current is not None:
        yield current
