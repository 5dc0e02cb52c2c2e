"""The message broker: where requests come from and where events go.  Layer 4.

topology    the names, and what is declared, as data
address     AMQP_URL → connection parameters; nothing here ever prints the password
link        one AMQP connection as awaitables (pika's asyncio adapter)
consumer    one channel's deliveries and their acks
publisher   one channel's publishes and their confirms
connection  what the supervisor holds: connects, consumes, publishes, and comes back after any loss
deadletter  the copy of a message that was refused
enqueue     the command line's blocking side: send one request, follow its events
"""
