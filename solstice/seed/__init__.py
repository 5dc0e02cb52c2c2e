"""The NoCloud seed, by which a guest learns who it is and gets its runner.  Layer 4.

`documents` says what stands in a seed; each container that can carry it has a module of its own: `iso`.
"""
