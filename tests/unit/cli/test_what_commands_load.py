"""Commands that only look load nothing that runs a model: they answer at once, also where none could be loaded."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from smoothcert.datasets import write_synthetic

OLD_RUN = Path(__file__).parents[2] / "data" / "run-0.1.zip"
HEAVY = ("torch", "transformers", "ray", "mlflow", "duckdb", "scipy", "scipy.stats", "sklearn", "matplotlib")
JOB = """
name: looked
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: /no/such/model}}
certify: {{sigma: 0.25, max_draws: 20, radii: [0.1]}}
output: {{runs: "{runs}"}}
"""
LOOK = """
import json, sys
from smoothcert.cli.main import app
from smoothcert.errors import SmoothcertError
loaded, codes = {}, {}
for name, arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as exc:
        codes[name] = exc.code
    except SmoothcertError as exc:  # once what does the work is loaded
        codes[name] = exc.exit_code
    loaded[name] = [each for each in json.loads(sys.argv[2]) if each in sys.modules]
print("\\n" + json.dumps([codes, loaded]))
"""


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, list[str]], str]:
    """Exit codes, heavy modules loaded by then, and all output, of commands that one process runs in turn."""
    folder = tmp_path_factory.mktemp("looked")
    with zipfile.ZipFile(OLD_RUN) as archive:
        archive.extractall(folder / "runs")
    run = next(path.parent for path in (folder / "runs").rglob("run.json"))
    write_synthetic(folder / "data", "parquet", pairs=6)
    (folder / "job.yaml").write_text(JOB.format(data=folder / "data", runs=folder / "new"))
    commands = [
        ("ls", ["ls", str(run.parent)]),
        ("status", ["status", str(run)]),
        ("plan", ["plan", str(folder / "job.yaml"), "--no-probe"]),
        ("query", ["query", str(run), "SELECT count(*) AS n FROM certificates"]),
        ("audit", ["audit", str(folder / "nowhere")]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(commands), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
    )
    *shown, last = done.stdout.splitlines()
    codes, loaded = json.loads(last)
    return codes, loaded, "\n".join(shown)


def test_they_do_what_they_are_asked(looked: tuple[dict[str, int], dict[str, list[str]], str]) -> None:
    codes, _, shown = looked
    assert codes == {"ls": 0, "status": 0, "plan": 0, "query": 0, "audit": 2}, shown
    assert "pairs      6 in " in shown and "not loaded" in shown


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("ls", set()),
        ("status", set()),
        ("plan", set()),
        ("query", {"duckdb"}),
        ("audit", {"duckdb", "scipy"}),
    ],
)
def test_they_load_nothing_that_computes(
    looked: tuple[dict[str, int], dict[str, list[str]], str], command: str, allowed: set[str]
) -> None:
    assert set(looked[1][command]) <= allowed
