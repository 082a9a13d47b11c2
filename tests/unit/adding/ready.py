"""A process that has imported what these programs need from elsewhere, and nothing of smoothcert.

Each program runs in a fork of it, so an entry that it adds is still there before any room of the product reads the
catalogue, and torch, transformers and MLflow are imported once for all of them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

FROM_ELSEWHERE = (
    "duckdb",
    "fsspec",
    "matplotlib.backends.backend_agg",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "numpy",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic",
    "requests",
    "rich.console",
    "rich.progress",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "sqlalchemy.dialects.sqlite",
    "torch",
    "torch.optim",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.clip.modeling_clip",
    "typer",
    "yaml",
)


def run(program: str, folder: str) -> int:
    """Run a program as ``python program folder`` would, and return its exit code."""
    assert not any(name.partition(".")[0] == "smoothcert" for name in sys.modules)
    sys.argv = [program, folder]
    sys.path.insert(0, str(Path(program).parent))
    try:
        runpy.run_path(program, run_name="__main__")
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """For each line of a program, its folder, and files for both streams: run it and tell the exit code."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read on import, so not by each fork
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # runs are tracked beside themselves
    for name in FROM_ELSEWHERE:
        importlib.import_module(name)
    gc.freeze()  # what a fork need not copy to look for garbage
    for line in sys.stdin:
        program, folder, *streams = json.loads(line)
        if (child := os.fork()) == 0:
            for number, stream in enumerate(streams, start=1):
                os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT, 0o600), number)
            code = run(program, folder)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # taking down what was imported would take seconds


if __name__ == "__main__":
    main()
