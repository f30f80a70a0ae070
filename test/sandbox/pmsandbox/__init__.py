"""A local Postmark for developers and tests.

cli        command line, listening sockets, signals
tls        an authority and a certificate of its own
server     one HTTP request from arrival to answer: log, faults, delivery
world      the state of the sandbox, which all of these share
faults     rules that make the sandbox misbehave, and what they do
api        Postmark's endpoints
validation what Postmark checks in a message before it accepts it
addresses  the syntax of addresses and address lists
templates  the templates of the server, and rendering
mustachio  the language they are written in
suppressions  inactive recipients
fates      which addresses bounce, and as what
feedback   what became of messages: bounces, complaints, deliveries
webhooks   who is told of it, and the telling
source     the raw source of a message
store      the accepted messages, and Postmark's search over them
journal    the state file that carries accepted messages over a restart
requestlog what arrived when, counters, and waiting for them
settings   what the command line and the control API can change
control    the control API below /_sandbox/
mailbox    what the mailbox shows, a page for people
"""
