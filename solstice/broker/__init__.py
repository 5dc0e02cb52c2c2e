"""The message broker: where requests come from and where events go.  Layer 4.

topology    the names, and what is declared, as data
address     AMQP_URL → connection parameters; nothing here ever prints the password
tls         the certificates that go with it
link        one AMQP connection as awaitables (pika's asyncio adapter)
consumer    one channel's deliveries and their acks
publisher   one channel's publishes and their confirms
session     one connection that consumes and one that publishes, until one of them is lost
connection  what the supervisor holds: sessions, one after the other, and what is wanted of them
deadletter  the copy of a message that was refused
blocking    what the command line's modules share:
enqueue     … send one request, follow its events
deadletters … look at dead letters, and send them again
"""
