"""Benchmarks of tfseg_ops: `python -m benchmarks` runs all, see `benchmarks.command_line`."""
