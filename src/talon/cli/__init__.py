"""The command line and the composition root: the only room that names a concrete store, the system's clock and random ids."""
