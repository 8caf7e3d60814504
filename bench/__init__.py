"""The bench: what a durable turn costs, beside peers that do the same turn, measured in one run that anyone can repeat.

One turn is message → model → tool → model → answer, every step durable before the next begins.

    plan       what is measured of whom, and for how long          targets   what has to be reached
    subjects   Talon and its peers as processes                    peers/    the peers' programs, each in an environment of its own
    model      a model server of 0 ms, or any delay and pace       load      the load generator, a process of its own
    wire       the load's HTTP client                              toolbox   Talon's tools for it
    database   PostgreSQL with fsync, and its counters             machine   /proc, cgroups, the disk
    measures   one measurement                                     rounds    all of them, interleaved
    stats      percentiles, medians of ratios                      table     the readable result

Beside it, whether what resources cost depends on how many there are (`make flat`):

    flat       what is measured, in which order                    worlds    stores of 10 to 100,000 resources, and Talon on them
    asks       what is asked over HTTP                             counted   Talon with SQLite's steps counted
    flatness   ratios and verdicts
"""
