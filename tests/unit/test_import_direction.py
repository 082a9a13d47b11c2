"""Imports go one way: a room may import any room above it in ``ORDER``, never one below; and no file imports itself."""

import ast
from functools import cache
from pathlib import Path

import pytest

import smoothcert

PACKAGE = Path(smoothcert.__file__).parent
ORDER = (
    "late_names",
    "errors",
    "redaction",
    "printable",
    "shipped",
    "version",
    "certificates",
    "statistics",
    "catalogue",
    "storage",
    "job",
    "datasets",
    "encoders",
    "defences",
    "answerers",
    "attacks",
    "engine",
    "store",
    "training",
    "sql",
    "work",
    "runtime",
    "summary",
    "audit",
    "report",
    "tracking",
    "monitor",
    "studies",
    "api",
    "cli",
)
PURE = {"torch", "ray", "mlflow", "duckdb", "pydantic", "pyarrow", "transformers"}
UP_TO_ENGINE = ORDER[: ORDER.index("engine") + 1]
FORBIDDEN = {
    **{room: {"ray", "mlflow", "duckdb"} for room in UP_TO_ENGINE},
    **dict.fromkeys(("certificates", "statistics", "catalogue"), PURE),
    "store": {"torch", "ray", "mlflow", "duckdb"},
    "sql": {"torch", "ray", "mlflow"},
    "training": {"ray", "mlflow", "duckdb"},
    "work": {"ray", "mlflow"},
}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules and names that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def modules() -> tuple[Path, ...]:
    return tuple(path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py")


def graph() -> dict[str, set[str]]:
    """Which file imports which; a name taken from a package counts as taken from the file that defines it."""
    files = {_dotted(path): path for path in modules()}
    faces = {name: _face(path) for name, path in files.items() if path.name == "__init__.py"}
    edges: dict[str, set[str]] = {}
    for name, path in files.items():
        if path.name == "__init__.py":
            continue
        edges[name] = {
            target
            for imported in imports_of(path)
            if (target := _target(imported, files, faces)) is not None and target != name
        }
    return edges


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _face(path: Path) -> dict[str, str]:
    """Where the names that a package hands on come from."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _target(imported: str, files: dict[str, Path], faces: dict[str, dict[str, str]]) -> str | None:
    for _ in range(8):
        if imported in files:
            return None if imported in faces else imported
        package, _, name = imported.rpartition(".")
        if package in faces and name in faces[package]:
            imported = faces[package][name]
        elif package in files:
            return None if package in faces else package
        else:
            return None
    raise AssertionError(f"{imported} is handed on in a loop")


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Files that import each other in a loop (strongly connected sets of more than one)."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in edges.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        reach[start] = seen
    loops = {frozenset([a, *(b for b in reach[a] if a in reach.get(b, ()))]) for a in edges if a in reach[a]}
    return [sorted(loop) for loop in loops]


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in modules()} <= set(ORDER)


def test_imports_go_one_way() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "smoothcert" or len(parts) < 2 or parts[1] not in ORDER:
                continue
            if ORDER.index(parts[1]) > ORDER.index(room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_rooms_stay_free_of(room: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imports_of(path)
        if room_of(path) == room and name.split(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong, "\n".join(wrong)
