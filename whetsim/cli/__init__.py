"""The command ``whetsim``. Exit status: 0 as expected, 1 the result says no, 2 bad use or input."""

from importlib import import_module

from whetsim.cli.app import app, main

__all__ = ["app", "main"]

# In the order in which --help lists their commands.
for _module in ("networks", "runs", "sharded", "hardware", "about"):
    import_module(f"whetsim.cli.{_module}")
