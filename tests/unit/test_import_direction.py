"""Imports go one way: a room may import any room to its left, never to its right."""

import ast
from pathlib import Path

import smoothcert

PACKAGE = Path(smoothcert.__file__).parent
ORDER = [
    {"errors"},
    {"redaction"},
    {"job_section"},
    {"job_encoder"},
    {"job_attacks"},
    {"job_paths"},
    {"job"},
    {"certificates", "statistics"},
    {"encoders", "defences", "attacks", "datasets"},
    {"engine"},
    {"store"},
    {"runtime"},
    {"tracking", "report"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FORBIDDEN = {
    "certificates": {"torch", "ray", "mlflow", "duckdb", "pydantic", "pyarrow", "transformers"},
    "statistics": {"torch", "ray", "mlflow", "duckdb", "pydantic", "pyarrow", "transformers"},
    **{
        room: {"ray", "mlflow", "duckdb"}
        for room in ("encoders", "defences", "attacks", "datasets", "engine")
    },
}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in modules()} <= set(LEVEL)


def test_imports_go_one_way() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "smoothcert" or len(parts) < 2 or parts[1] == room or parts[1] not in LEVEL:
                continue
            # rooms on one level may use each other only as architecture.md allows: attacks use encoders
            allowed = LEVEL[parts[1]] < LEVEL[room] or (room, parts[1]) in SAME_LEVEL
            if not allowed:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


SAME_LEVEL = {("attacks", "encoders"), ("defences", "encoders"), ("statistics", "certificates")}


def test_pure_rooms_stay_pure() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN.get(room_of(path), set())
    ]
    assert not wrong, "\n".join(wrong)
