"""Whole jobs: a real `solstice serve` with a real broker, a real libvirtd and real guests."""
