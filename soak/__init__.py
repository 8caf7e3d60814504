"""The soak: real processes under load, hurt at random, and asked whether any promise of the kernel was broken.

plans      what a message asks for: which tools, how slow, which faults      model      the scripted answers to it
toolbox    tools of every effect class                                       counter    the world outside, which counts
node       one `talon` process; `fleet` all of them                           service    counter and model server
client     requests with keys, repeated under the same key                    follower   a stream, read by cursor
workload   sessions, their operations and the humans                          verify     what must hold of a session
chaos      what goes wrong, and when                                          proxy      loses answers of PostgreSQL
machine    a small disk, a clock that jumps                                   growth     memory and file descriptors
run        all of it together                                                 negative   Talon with a promise taken out
"""
