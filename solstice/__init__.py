"""Solstice: a CI orchestrator that gives each job a fresh virtual machine.

The path of a job, and the part that owns each stretch of it:

    solstice enqueue ─► RabbitMQ ─► supervisor.intake    parse, validate, resolve the label
                                      │ store            insert (idempotent by request_id), commit
                                      │ broker           ack
                                      ▼
                                    supervisor.capacity  is there a slot for it?
                                      ▼
                                    supervisor.children  have the fork server fork one worker
                                      ▼
                  worker.life       prepare ─ boot ─ run ─ collect ─ clean
                     images         the base image, verified, read-only
                     seed           NoCloud ISO
                     hypervisors    overlay, define, start … shut down, undefine, delete
                     runner         drive the runner in the guest, write the log (own process)
                                      ▼
                                    supervisor.reports ─► store (state and outbox row, one commit)
                                      ▼
                                    RabbitMQ  solstice.events

The package root imports nothing, so that no import of a part can ever become a cycle.
"""

__version__ = "0.1.0"
