"""The contract (`base`), the choice (`router`), and one folder or file per back end.  Layer 4.

Only a worker imports anything here: a back end that hangs or crashes takes its worker with it and nothing else.
The folders `libvirt/` and `zones/` hold the same file names, so that one teaches the other.
"""
