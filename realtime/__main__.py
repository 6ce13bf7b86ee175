"""`python -m realtime` is `dhmd-live`."""

from realtime.cli import program

program()
