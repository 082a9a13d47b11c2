"""One noise generator a task and run (docs/theory.md section 4.9): attempts under another one never start.

Units are attempted more than once: a lost worker's again, an overdue one twice at a time, a stopped run's when it is
resumed, a quarantined pair's when it is retried. Which attempt counts, and whether there is another, may depend on what
the attempt saw: with targets the one that decides early ends early, and a NaN shows under some noise only. Under one
generator all attempts at a pair see the same draws, and it does not matter which of them counts. Under two, a false
certificate would have two chances. So the first worker of a run settles the generator, whatever it finds, and workers
that draw from another one are refused before they draw, in this session and in any later one.
"""

from __future__ import annotations

import json

from smoothcert.errors import RunDirectoryError
from smoothcert.store import RunDirectory


def pin_noise(run: RunDirectory, task_id: str, noise: str) -> None:
    """Settle that a task of a run is drawn from a generator, where none is settled yet.

    Only the driver does this: inside of ``run.committing()``, so that on a store without exclusive creation nobody
    else does.

    Args:
        run: the run directory.
        task_id: the task.
        noise: the generator's name, by ``engine.noise.generator_name``.

    Raises:
        RunDirectoryError: the task was begun under another generator.
        StoreError: reading or writing failed.
    """
    file = pin_file(task_id)
    text = run.read_document(file)
    if text is None:
        made = json.dumps({"noise": noise}).encode()
        if not run.exclusive:
            run.write_document(file, made)
            return
        if run.storage.create(file, made):
            return
        text = run.read_document(file)
    settled = json.loads(text or b"{}").get("noise")
    if settled != noise:
        raise RunDirectoryError(
            f"'{run.url}' was begun with noise from '{settled}', and a worker here draws from '{noise}': what was "
            "tried under one and tried again under the other would have two chances to be certified falsely",
            remedy="go on with the same kind of device and version of torch, or begin another run (output.run)",
        )


def pin_file(task_id: str) -> str:
    """Where the generator of a task is kept, below the run directory."""
    return f"plan/noise-{task_id or 'certificates'}.json"
