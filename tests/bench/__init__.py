"""Measurements: each is an executable file of this folder, which prints a table and one figure in its last line."""
