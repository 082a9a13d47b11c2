"""The digest of code covers what the code imports: another helper is another encoder, and nothing else is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from smoothcert.defences import defend
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job import DefenceSection, EncoderSection

FILES = {
    "nets.py": """
from functools import partial

import torch
from study_layers import strength

class Dim(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, pixels):
        from study_kit.late import twice  # when it computes

        return pixels * self.by * twice(0.5)

def make(encoder):
    return Dim(strength())

bound = partial(make)
""",
    "study_layers.py": "from study_kit import strength\n",
    "study_kit/__init__.py": "from .inner import VALUE\ndef strength(): return VALUE\n",
    "study_kit/inner.py": "VALUE = 0.5\n",
    "study_kit/late.py": "def twice(x): return 2 * x\n",
    "study_kit/unused.py": "ANYTHING = 1\n",
    "plots.py": "import nets\n",
}


@pytest.fixture(scope="module")
def base() -> Encoder:
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))


@pytest.fixture(autouse=True)
def new_process() -> Iterator[None]:
    """As if each test were a process of its own."""
    path = list(sys.path)
    forget()
    yield
    forget()
    sys.path[:] = path


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith(("study_", "nets_"))]:
        del sys.modules[name]


def write(here: Path, **changed: str) -> Path:
    for name, text in (
        FILES | {key.replace("__", "/", 1) + ".py": text for key, text in changed.items()}
    ).items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    return here


def digest(base: Encoder, folder: Path, of: str = "make") -> str:
    forget()
    sys.path[:] = [place for place in sys.path if not (Path(place) / "study_layers.py").exists()]
    where = f"{folder}/nets.py:{of}"
    return defend(base, DefenceSection(purifier=where), "dim").digest


@pytest.mark.parametrize("of", ["make", "bound"])
def test_every_file_behind_a_defence_counts_and_no_other(base: Encoder, tmp_path: Path, of: str) -> None:
    plain = digest(base, write(tmp_path / "a"), of)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert digest(base, tmp_path / "copy", of) == plain
    beside = write(tmp_path / "b", plots="import os\n", study_kit__unused="ANYTHING = 2\n", more="A = 1\n")
    assert digest(base, beside, of) == plain, "files that nothing imports"
    others = [
        write(tmp_path / "c", study_kit__inner="VALUE = 0.25 * 2\n"),
        write(tmp_path / "d", study_kit__late="def twice(x): return x + x\n"),
        write(tmp_path / "e", study_layers="from study_kit import strength as strength\n"),
        write(tmp_path / "f", nets=FILES["nets.py"] + "# said more\n"),
    ]
    assert len({plain, *(digest(base, each, of) for each in others)}) == 5


def test_where_names_are_made_every_file_of_the_folder_counts(base: Encoder, tmp_path: Path) -> None:
    text = FILES["nets.py"] + "from importlib import import_module\n"
    plain = digest(base, write(tmp_path / "a", nets=text))
    changed = digest(base, write(tmp_path / "b", nets=text, study_kit__unused="ANYTHING = 2\n"))
    assert digest(base, tmp_path / "a") == plain != changed


STAR = {
    "nets": FILES["nets.py"] + "from study_star import *\n",
    "study_star____init__": "__all__ = ['hidden']\n",
    "study_star__hidden": "VALUE = 1\n",
}
HIDDEN = {"nets": FILES["nets.py"] + "import builtins\n", "study_hidden": "VALUE = 1\n"}
TWO = {
    "nets": FILES["nets.py"] + "import study_a.same, study_b.same\n",
    "study_a__same": "A = 1\n",
    "study_b__same": "A = 2\n",
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (STAR, STAR | {"study_star__hidden": "VALUE = 2\n"}),
        (HIDDEN, HIDDEN | {"study_hidden": "VALUE = 2\n"}),
        (TWO, TWO | {"study_a__same": "A = 2\n", "study_b__same": "A = 1\n"}),
    ],
    ids=["by a star", "by name through builtins", "in folders without __init__.py"],
)
def test_what_hides_behind_other_imports_counts(
    base: Encoder, tmp_path: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    assert digest(base, write(tmp_path / "a", **before)) != digest(base, write(tmp_path / "b", **after))


def test_a_package_may_have_a_module_of_the_name_of_one_beside_the_package(
    base: Encoder, tmp_path: Path
) -> None:
    folder = write(
        tmp_path,
        study_kit__inner="from study_twin import VALUE\n",
        study_kit__study_twin="VALUE = 'not imported'\n",
        study_twin="VALUE = 0.5\n",
    )
    plain = digest(base, folder)
    (folder / "study_kit" / "study_twin.py").write_text("VALUE = 'another'\n")
    assert digest(base, folder) == plain
    (folder / "study_twin.py").write_text("VALUE = 0.25\n")
    assert digest(base, folder) != plain


def test_what_runs_must_be_what_is_there(base: Encoder, tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    section = DefenceSection(purifier=f"{folder}/nets.py:make")
    before = defend(base, section, "dim").digest
    assert defend(base, section, "dim").digest == before
    (folder / "study_kit" / "inner.py").write_text("VALUE = 0.75\n")
    with pytest.raises(EncoderError, match="inner.py' has changed since it was imported") as caught:
        defend(base, section, "dim")
    assert "new process" in str(caught.value.remedy)
    write(folder)
    other = write(tmp_path / "b", study_layers="def strength(): return 0.75\n")
    shutil.rmtree(other / "study_kit")
    with pytest.raises(EncoderError, match="imports 'study_layers', which is .*a/study_layers.py"):
        defend(base, DefenceSection(purifier=f"{other}/nets.py:make"), "dim")


def test_a_module_of_a_package_is_followed_too(base: Encoder, tmp_path: Path) -> None:
    sys.path.append(
        str(
            write(
                tmp_path,
                study_kit__made="from .inner import VALUE\nfrom .late import twice\n"
                "def make(encoder):\n import torch\n return torch.nn.Identity()\n",
            )
        )
    )
    section = DefenceSection(purifier="study_kit.made:make")
    plain = defend(base, section, "none").digest
    forget()
    (tmp_path / "study_kit" / "late.py").write_text("def twice(x): return x + x\n")
    assert defend(base, section, "none").digest != plain
    assert isinstance(defend(base, section, "none").purifier, torch.nn.Identity)
