"""Samples of an archive: neighbouring members of one key, as WebDataset groups them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from smoothcert.datasets.tar_members import Member

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXT_EXTENSIONS = ("txt", "json", "cls")
MOST_TOGETHER = 32
"""So many samples are looked at together at most, to tell parts of a sample from samples with dots in their names."""

OnMemberLeftOut = Callable[[Member, str], object]


@dataclass(slots=True)
class Sample:
    """One sample: its members by extension, in archive order.

    Attributes:
        key: the path without the extension.
        start: where its first member begins, or a part of it that was left out.
        members: by extension; of several with one extension the first.
        others: extensions of members that are neither image nor text.
        problem: why the sample cannot be read, or empty.
        begins: whether reading may begin at ``start`` and find the same samples from here on.
    """

    key: str
    start: int
    members: dict[str, Member] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    problem: str = ""
    begins: bool = True

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
        """Whether there is an image and something that says what it is: a caption or a label."""
        return self.image is not None and (self.has_caption or "cls" in self.members)


def split_key(name: str) -> tuple[str, str]:
    """(key, extension): the path up to the last dot of its last part, and the rest in lower case."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.rpartition(".")
    return (folder + slash + stem, extension.lower()) if dot else (folder + slash + base, "")


def family(name: str) -> str:
    """The path up to the first dot of its last part: what WebDataset takes for the key."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    return folder + slash + base.partition(".")[0]


def group_members(members: Iterable[Member], on_left_out: OnMemberLeftOut | None = None) -> Iterator[Sample]:
    """Samples in order.

    The extension is what follows the last dot: ``scan 2.0 left.png`` goes with ``scan 2.0 left.txt``. Only where
    a neighbour's key is the path up to the first dot (``a.png`` beside ``a.seg.png``), members that are no complete
    sample by themselves belong to that neighbour, as WebDataset has it, and are left out.

    Members of other extensions are noted in ``others`` and left out, as are names without a key. Where an archive
    ends without its end mark, the last sample takes the problem, though all of it may be there: nothing tells
    whether a member is missing. Without any sample, one named by its offset does.

    Args:
        members: from any sample that ``begins``.
        on_left_out: called with each member that no sample uses, and why.
    """
    told = on_left_out or _ignored
    together: list[Sample] = []
    name = ""  # what the samples together have in common
    strays: list[tuple[str, str]] = []
    for member in members:
        if not member.name:
            together = together or [Sample(f"offset-{member.start}", member.start)]
            together[-1].problem = together[-1].problem or member.problem
            continue
        key, extension = split_key(member.name)
        whose = family(member.name)
        known = extension in IMAGE_EXTENSIONS or extension in TEXT_EXTENSIONS
        if not known or not whose or whose.endswith("/"):
            told(member, member.problem or _why(extension, known))
            strays = [stray for stray in strays if stray[0] == whose] + [(whose, extension)]
            if member.cut and together and whose == name:
                together[-1].problem = together[-1].problem or member.problem
            continue
        current = next((sample for sample in together if sample.key == key and whose == name), None)
        if current is None:
            if whose != name or len(together) == MOST_TOGETHER:
                yield from _parted(together, name, told)
                together, name = [], whose
            together.append(current := Sample(key, member.start))
        current.others += [other for stray, other in strays if stray == whose]
        strays = []
        _put(current, extension, member, told)
    yield from _parted(together, name, told)


def _put(sample: Sample, extension: str, member: Member, told: OnMemberLeftOut) -> None:
    if extension in sample.members:
        told(member, "its sample has a member of this extension already")
    elif extension in IMAGE_EXTENSIONS and sample.image is not None:
        told(member, "its sample has another image already")
    else:
        sample.members[extension] = member
    if member.problem and not sample.problem:
        sample.problem = f"member '{member.name}': {member.problem}"


def _parted(together: list[Sample], name: str, told: OnMemberLeftOut) -> Iterator[Sample]:
    """The samples, without those that are mere parts of the one that has the name itself for its key."""
    head = next((sample for sample in together if sample.key == name), None)
    begin = True
    for sample in together:
        if head is not None and sample is not head and not sample.complete:
            for member in sample.members.values():
                told(member, "it is a further part of a sample, and no complete sample by itself")
                if member.cut:
                    head.problem = head.problem or member.problem
    for sample in together:
        if head is None or sample is head or sample.complete:
            sample.begins = begin
            if begin:
                sample.start = together[0].start
            begin = False
            yield sample


def _why(extension: str, known: bool) -> str:
    if known:
        return "its name begins with a dot"
    return f"'.{extension}' is not an image, caption or label" if extension else "its name has no extension"


def _ignored(member: Member, reason: str) -> None:
    del member, reason
