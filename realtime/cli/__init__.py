"""`dhmd-live`: the command. A module for each group of its commands; what they need is loaded when they run."""

from realtime.cli.entry import main, program

__all__ = ["main", "program"]
