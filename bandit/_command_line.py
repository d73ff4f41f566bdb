"""What the package's command lines share: exit statuses, a brief parser, and errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from bandit.tables import printable

FAILED, BAD_VALUE, INTERRUPTED, NO_READER = 1, 2, 130, 141


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def format_help(self) -> str:
        return printable(super().format_help(), sys.stdout)

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(BAD_VALUE, printable(f"{self.prog}: {line} (see --help)\n", sys.stderr))


def add_command(
    program: str, commands: Any, name: str, summary: str, details: str, *examples: str
) -> Parser:
    """Add a command to a program's, with ``examples`` of what may follow its name."""
    shown = "\n".join(f"  {program} {name} {example}".rstrip() for example in examples)
    return commands.add_parser(
        name,
        help=summary,
        description=details,
        epilog=f"example{'s' if len(examples) > 1 else ''}:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def answered(
    program: str, run: Callable[[argparse.Namespace], int], option_of: Mapping[str, str]
) -> int:
    """The exit status of ``run``, with one line on stderr for an error of the user's.

    Parameters
    ----------
    program : str
        What the line begins with.
    run : callable
        Fills the namespace it is given with the options, and returns its own exit status.
    option_of : mapping
        What the package calls an argument → the option it comes from, where they differ.

    Returns
    -------
    int
        That of ``run``, or 2 for a wrong value, 130 when interrupted, 141 when nobody reads the
        output.
    """
    options = argparse.Namespace()
    _open_what_was_closed()
    try:
        try:
            status = run(options)
        except SystemExit as stop:
            status = int(stop.code or 0)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit: give it somewhere to write.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, MemoryError, OverflowError) as error:
        complain(program, _one_line(error, options, option_of))
        return BAD_VALUE
    return status


def _open_what_was_closed() -> None:
    """Started without an output, a program has None in its place, and would write errors to the
    other one: what nobody reads goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def complain(program: str, line: str) -> None:
    """One line on stderr."""
    print(printable(f"{program}: {line}", sys.stderr), file=sys.stderr)


def _one_line(error: Exception, options: argparse.Namespace, option_of: Mapping[str, str]) -> str:
    """The first line of a message, with the option in place of the package's argument."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = (str(error) or type(error).__name__).strip().splitlines()[0]
    argument, colon, rest = text.partition(": ")
    name = option_of.get(argument, argument)
    return f"--{name.replace('_', '-')}: {rest}" if colon and name in options else text
