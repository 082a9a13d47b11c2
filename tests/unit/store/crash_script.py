"""Run as a program: does a step of the store in child processes that die, as by SIGKILL, before the n-th system call
that touches the run directory, for n = 1, 2, 3, ... until one gets through. Prints how many died, per action.

Usage: crash_script.py RUN ACTION, with ACTION commit (unit n in child n), create, fold or compact.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

from smoothcert.store import CommitLog, RunDirectory

MAKE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "builders.py")))
KILLED = 137
os.fsync = lambda handle: None  # the machine does not die here, only the process


def die_before_call(number: int, directory: str) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open" or event.startswith("os."):
            if any(isinstance(argument, str) and argument.startswith(directory) for argument in arguments):
                seen += 1
                if seen == number:
                    os._exit(KILLED)

    sys.addaudithook(hook)


def act(action: str, url: str, number: int) -> None:
    if action == "create":
        RunDirectory.create_or_open(f"{url}/{number}", MAKE.identity(), MAKE.units(3))
        return
    run = RunDirectory.open(url)
    vars(run)["commits"] = CommitLog(run.storage, exclusive=True)  # the probe is no part of these steps
    if action == "commit":
        unit = MAKE.units(number + 1)[number]
        assert MAKE.commit_unit(run, unit)
    elif action == "fold":
        run.commits.fold(min_new=1)  # does nothing if a child died after it had made the manifest
    elif action == "compact":
        from smoothcert.store.compact import compact

        assert compact(run).files_after == 1


def main(url: str, action: str) -> None:
    warm = RunDirectory.create_or_open("memory://warm", MAKE.identity(), MAKE.units(1))
    MAKE.commit_unit(warm, MAKE.units(1)[0])  # so that children need not import and compile it each
    warm.commits.fold(min_new=1)
    number = 0
    while True:
        number += 1
        child = os.fork()
        if child == 0:
            try:
                die_before_call(number, url)
                act(action, url, number)
            except BaseException as exc:
                print(repr(exc), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            break
        assert code == KILLED, f"child {number} failed with {code}"
    print(json.dumps({"died": number - 1}))


if __name__ == "__main__":
    main(*sys.argv[1:])
