"""The ``scarprune`` command: finds the subcommand, and turns errors into sentences and exit codes."""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

import click

from scarprune import __version__
from scarprune.errors import ArgumentError, ScarpruneError
from scarprune.runtime.garbage import collect_rarely

DONE, FAILED, INTERRUPTED = 0, 1, 130

# In the order of --help. Each is a file of this folder with one `command`, which imports what it needs
# (torch above all) only when it runs.
COMMANDS = (
    "demo",
    "prune",
    "profile",
    "plan",
    "cut",
    "heal",
    "eval",
    "sweep",
    "bench",
    "analyze",
    "validate",
    "trajectory",
    "reproduce",
    "report",
    "families",
    "scores",
)

OF_SEVERAL_PROCESSES = ("profile", "heal", "eval")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        if _several() and name not in OF_SEVERAL_PROCESSES:
            raise ArgumentError(
                f"{name} is the work of one process, not of several.", hint="Run it without torchrun."
            )
        command: click.Command = importlib.import_module(f"scarprune.cli.{name}").command
        return command


@click.group(cls=_Commands, context_settings={"max_content_width": 100})
@click.version_option(__version__, "--version", message="scarprune %(version)s")
def app() -> None:
    """Shows which feed-forward channels a language model's loss hangs on, and cuts the others out.

    MODEL is a folder, a hub id, a .gguf file or "demo" (a small built-in model).
    TEXT is a .txt, .jsonl, .parquet or .npy file (also under .xz, .gz, .zst),
    hf:NAME[:CONFIG]:SPLIT, or "demo" (built-in text).
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code is 0, 1 (error), 2 (refused by the parser) or 130 (Ctrl-C)."""
    try:
        code = app.main(arguments, prog_name="scarprune", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        if _speaks():
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as interrupt:
        notes = getattr(interrupt.__cause__ or interrupt, "__notes__", [])
        if _speaks():
            print(" ".join(["Interrupted.", *notes]), file=sys.stderr)
        return INTERRUPTED
    except ScarpruneError as error:
        return _fail(" ".join([str(error), *getattr(error, "__notes__", [])]))
    except BrokenPipeError:
        # The reader of our output has gone; without this Python complains again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    return code if isinstance(code, int) else DONE


def _fail(sentence: str) -> int:
    if _speaks():
        print(f"Error: {sentence}", file=sys.stderr)
    return FAILED


def _speaks() -> bool:
    """Whether this process says why the run ends; of several the first that ends says it for all."""
    if not _several():
        return True
    from scarprune.runtime.ending import speaks_first

    return speaks_first()


def _several() -> bool:
    """Whether a launcher started more processes than this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def main() -> None:
    """The console script."""
    # torch says so where a thread of its own meets a GPU for the first time; nothing is wrong.
    warnings.filterwarnings("ignore", "Attempting to run cuBLAS, but there was no current CUDA context")
    collect_rarely()
    if not _several():
        sys.exit(run())
    from scarprune.runtime.ending import leave

    try:
        code = run()
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = FAILED
    if code != DONE:
        leave(code)
