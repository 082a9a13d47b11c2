"""The ``smoothcert`` command: assembles the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable

import typer

from smoothcert.cli.attack import attack
from smoothcert.cli.audit import audit
from smoothcert.cli.certify import certify
from smoothcert.cli.compact import compact
from smoothcert.cli.compare import compare
from smoothcert.cli.demo_data import demo_data
from smoothcert.cli.doctor import doctor
from smoothcert.cli.gc import gc
from smoothcert.cli.import_logs import import_logs
from smoothcert.cli.init import init
from smoothcert.cli.leaderboard import leaderboard
from smoothcert.cli.ls import ls
from smoothcert.cli.monitor import monitor
from smoothcert.cli.plan import plan
from smoothcert.cli.query import HELP as QUERY_HELP
from smoothcert.cli.query import query
from smoothcert.cli.report import report
from smoothcert.cli.reproduce import reproduce
from smoothcert.cli.retry import retry
from smoothcert.cli.status import status
from smoothcert.cli.study import study
from smoothcert.cli.terminal import LogLines, Terminal, prepare_streams
from smoothcert.cli.track import track
from smoothcert.cli.train import train
from smoothcert.cli.tune import tune
from smoothcert.errors import SmoothcertError
from smoothcert.redaction import without_secrets
from smoothcert.runtime.ray_stay import keep_cluster
from smoothcert.version import VERSION

app = typer.Typer(
    name="smoothcert",
    help="Certified robustness of image-text encoders over whole datasets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _reflow(text: str) -> str:
    """A docstring as help: each paragraph one line, which the terminal's width breaks."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


_COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "plan": plan,
    "certify": certify,
    "attack": attack,
    "audit": audit,
    "study": study,
    "leaderboard": leaderboard,
    "tune": tune,
    "status": status,
    "ls": ls,
    "query": query,
    "compare": compare,
    "report": report,
    "import": import_logs,
    "monitor": monitor,
    "reproduce": reproduce,
    "retry": retry,
    "compact": compact,
    "gc": gc,
    "track": track,
    "train": train,
    "demo-data": demo_data,
    "doctor": doctor,
}
for name, command in _COMMANDS.items():
    app.command(name, help=QUERY_HELP if command is query else _reflow(command.__doc__ or ""))(command)

_debug = False


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smoothcert {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks and debug logs."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log progress messages."),
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_say_version
    ),
) -> None:
    """Certified robustness of image-text encoders over whole datasets."""
    global _debug
    _debug = debug
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    handler = LogLines(console=Terminal(stderr=True), show_path=debug)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", datefmt="[%X]", handlers=[handler])
    logging.getLogger("smoothcert").setLevel(level)


def main() -> None:
    """Entry point of the console script."""
    prepare_streams()
    try:
        with keep_cluster():
            app()
    except SmoothcertError as exc:
        _explain(exc)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        Terminal(stderr=True).say("interrupted; committed results are kept")
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output went away (| head); leave quietly, as other tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as exc:
        _explain(exc)
        Terminal(stderr=True).say(
            "This is a bug in smoothcert: run again with --debug and report the traceback."
        )
        sys.exit(70)


def _explain(error: BaseException) -> None:
    if _debug:
        Terminal(stderr=True).say(without_secrets("".join(traceback.format_exception(error))))
    else:
        Terminal(stderr=True).say(("error:", "bold red"), " ", without_secrets(_words(error)))


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, SmoothcertError) else f"{type(error).__name__}: {error}"
