"""A package inside another is imported where it is used: who else has imported it differs from command to command.

After a mere ``import pyarrow``, ``pyarrow.dataset`` is there only where some other file has imported it. Tests run in
processes that have imported nearly everything, so none of them would miss it.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import smoothcert

PACKAGE = Path(smoothcert.__file__).parent
GIVEN = {
    "fsspec": {"core"},
    "numpy": {"linalg", "polynomial", "polynomial.legendre", "random"},
    "optuna": {"distributions", "logging", "pruners", "trial"},
    "pyarrow": {"ipc", "types"},
    "torch": {
        "autograd",
        "cuda",
        "distributed",
        "linalg",
        "nn",
        "nn.functional",
        "nn.init",
        "nn.utils",
        "optim",
        "random",
        "version",
    },
}
"""What each of these imports itself, so that it is there after ``import torch`` alone."""


def packages_used(text: str) -> Iterator[str]:
    """Packages and modules that a file uses by their dotted names without having imported them."""
    nodes = list(ast.walk(ast.parse(text)))
    bound: dict[str, str] = {}
    imported: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                imported.add(each.name)
                root = each.name.partition(".")[0]
                bound[each.asname or root] = each.name if each.asname else root
    for node in nodes:
        if isinstance(node, ast.Attribute) and (name := _dotted(node)):
            first, _, rest = name.partition(".")
            if first in bound and _is_module(full := f"{bound[first]}.{rest}") and full not in imported:
                yield full


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def _is_module(name: str) -> bool:
    """Whether a file or folder has this name, told without importing it."""
    root, *parts = name.split(".")
    spec = importlib.util.find_spec(root)
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *parts)
        if (place / "__init__.py").exists() or any(place.parent.glob(f"{place.name}.[ps][yo]*")):
            return True
    return False


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_a_package_inside_another_is_imported_where_it_is_used(file: Path) -> None:
    used = {tuple(name.split(".", 1)) for name in packages_used(file.read_text(encoding="utf-8"))}
    assert not {f"{root}.{rest}" for root, rest in used if rest not in GIVEN.get(root, ())}


def test_what_is_not_imported_is_found() -> None:
    assert list(packages_used("import scipy\nscipy.stats.norm.cdf(0)")) == ["scipy.stats"]
    assert list(packages_used("import pyarrow as pa\npa.dataset.dataset(pa.table({}))")) == [
        "pyarrow.dataset"
    ]
    assert list(packages_used("import scipy.stats\nscipy.stats.norm.cdf(0)")) == []
