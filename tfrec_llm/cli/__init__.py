"""The command line `tfrec-llm`: a module for each command, none of which imports Keras to start."""

from tfrec_llm.cli.program import main

__all__ = ["main"]
