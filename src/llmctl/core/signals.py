"""How long a main thread may sleep at a time, so that it hears a Ctrl-C.

Python runs a signal's handler between two instructions of the main thread. A signal that comes just before that
thread goes to sleep, on a lock or a read, does not end the sleep: without a limit it would be heard only when a
step ends, or when somebody presses a key.
"""

HEAR_S = 0.2
