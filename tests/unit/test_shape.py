"""The shape of the package: small rooms, short functions, one name for one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import smoothcert

PACKAGE = Path(smoothcert.__file__).parent
LARGEST_ROOM = 0.15
MOST_LINES = 80
MOST_PARAMETERS = 7
WITH_A_REASON = {
    "cli/demo_data.py:demo_data": "options of a command",
    "cli/monitor.py:monitor": "options of a command",
    "attacks/campaign.py:Campaign.__init__": "holds the whole state of an attack's search",
    "encoders/module_encoder.py:ModuleEncoder.__init__": "public; a preprocessing, by keywords with defaults",
    "attacks/scoring.py:score": "public; all but four have defaults or name what keys the draws",
}
"""Functions that have more lines or parameters."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield prefix + child.name, child
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield from below(child, f"{prefix}{child.name}.")

    return below(tree, "")


def parameters(function: ast.FunctionDef) -> int:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_no_room_holds_much_more_than_its_share() -> None:
    lines: dict[str, int] = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    total = sum(lines.values())
    assert {room: count for room, count in lines.items() if count > LARGEST_ROOM * total} == {}


def test_functions_are_short_and_take_few_parameters() -> None:
    long = {
        f"{file}:{name}"
        for file, tree in trees()
        for name, function in functions(tree)
        if (function.end_lineno or 0) - function.lineno + 1 > MOST_LINES
        or parameters(function) > MOST_PARAMETERS
    }
    assert long == set(WITH_A_REASON)


def test_no_two_classes_or_aliases_have_one_name() -> None:
    """Aliases of the same type may share one."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")][file] = f"class in {file}"
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case _:
                    continue
            name, value = name.lstrip("_"), ast.unparse(value)
            if name[:1].isupper() and not name.isupper() and not value.startswith("TypeVar("):
                places[name][file] = value
    twice = {name: files for name, files in places.items() if len(set(files.values())) > 1}
    assert twice == {}


PARTICIPLES = {
    "left",
    "both",
    "only",
    "gone",
    "named",
    "shown",
    "checked",
    "clean",
    "joined",
    "computed",
    "opened",
}


def test_functions_are_called_by_verbs() -> None:
    """Properties, which are called nothing, may be what they say."""
    found = [
        f"{file}:{name}"
        for file, tree in trees()
        for name, function in functions(tree)
        if name.rpartition(".")[2].strip("_") in PARTICIPLES
        and not any("property" in ast.unparse(each) for each in function.decorator_list)
    ]
    assert found == []
