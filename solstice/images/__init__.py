"""Base images: downloaded, decompressed, checked and published, by one child process for the host.  Layer 4.

`messages` is what the supervisor and the child tell each other; `child` the child's loop; `obtain` how one image comes
to its place, with `publish`, `versions`, `content`, `header` and `inspect` for the stretches of that way.

`pipeline` is how the bytes of a source become those of a disk: `download`, `fetch` and `part` bring them, `intake` lets
several threads read them, `checksum` says what their digest must be, and `decompress`, `zstdframes` and `sparse` write.
"""
