"""The runner: `guest.sh`, which runs in the guest, and the host's side of it.  Layer 4; the protocol is layer 1's."""
