"""One turn, from its message to its end: the pure machine, the context, the runner that performs."""
