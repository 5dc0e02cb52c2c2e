"""Base images: pulled, checked, kept as versions and kept up to date, by one child process for the host.  Layer 4.

`messages` is what the supervisor and the child tell each other; `child` the child's loop.  `obtain` is how one image
comes to be ready: `pipeline` brings the bytes of its disk, `publish` makes a version of them after `header` and
`inspect` have looked at it, and `versions` knows which one is used.  `content`, `usage` and `prune` look after those
that are there.

Within the pipeline `download`, `fetch` and `part` bring the bytes, `intake` lets several threads read them, `checksum`
says what their digest must be, and `decompress`, `zstdframes` and `sparse` write.
"""
