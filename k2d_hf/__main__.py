"""The program `k2d`, and `python -m k2d_hf`: the command line, with an answer to Ctrl-C before anything is imported."""

import os
import sys

from k2d_hf.terminal.interrupts import end_at_once

end_at_once()


def main() -> int:
    """Run the command line with the arguments of the process; returns the exit status."""
    try:
        from k2d_hf.cli import main as command_line

        return command_line()
    finally:
        _flush()


def _flush() -> None:
    """Give out what is printed before Python ends, while a reader that is gone can still be passed over."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
