"""The command line: harness.cli.app registers the verbs, a module each."""

from harness.cli.app import main

__all__ = ["main"]
