"""The supervisor: one thread, one asyncio loop.  Layer 6.

    core        puts the parts together, starts and stops them
    intake      deliveries become jobs, or dead letters
    capacity    is there a slot?  (pure)
    scheduler   the pending and the active jobs; starts what may start
    attempt     one attempt, from its row in the store to its slot being free again
    children    the fork server's other end: workers as streams of reports
    store, images   the other ends of those two children
    outbox      results on their way to the broker
    control     the control socket

It makes no hypervisor, image or database call itself, and imports neither libvirt nor a database driver.
"""
