"""Everything that crosses a process boundary: bytes in, events out, no I/O.  Layer 1.

`lines` is the framing that all our own processes share; `jobrequest` the public document; `order` and `reports` what
supervisor and worker tell each other, `session` worker and session, `store` supervisor and store; `runner` is the
hostile one, between the session and a guest.
"""
