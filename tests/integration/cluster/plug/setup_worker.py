"""What Ray runs to start a worker on the tests' cluster: the process that stands ready becomes the worker.

Ray leaves this out of a command line where there is nothing to set up, by its file's name: then it stands in place of
Ray's ``default_worker.py``, else before it. What is set up are variables, among them where code of the driver is.
None of it is documented; so it was in Ray 2.60.
"""

import json
import os
import re
import sys

from smoothcert_asking import ask

CONTEXT = "--serialized-runtime-env-context="


def main(arguments: list[str]) -> None:
    given = [each for each in arguments if each.endswith(".py") or each.startswith(("--language=", CONTEXT))]
    kept = [each for each in arguments if each not in given]
    environment = dict(os.environ)
    for each in given:
        if each.startswith(CONTEXT):
            context = json.loads(each.removeprefix(CONTEXT))
            assert not context["command_prefix"] and not context["override_worker_entrypoint"], context
            for name, value in context["env_vars"].items():
                environment[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    ask([environment["SMOOTHCERT_TESTS_WORKER"], *kept], environment, [0, 1, 2], ends_with_us=False)


if __name__ == "__main__":
    main(sys.argv[1:])
