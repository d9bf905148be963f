"""Slow, obvious numpy oracles, written from the formulas."""
