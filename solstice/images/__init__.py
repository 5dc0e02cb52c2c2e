"""Base images: downloaded, decompressed, checked and published, by one child process for the host.  Layer 4.

`messages` is what the supervisor and the child tell each other; `child` the child's loop; `obtain` how one image comes
to its place, with `fetch`, `decompress`, `publish`, `header` and `inspect` for the stretches of that way.
"""
