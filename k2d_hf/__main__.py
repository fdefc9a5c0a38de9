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
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader is gone, which Python would complain of when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
