"""Brokers: what rings the bell for gateways and workers. None of them is ever needed for correctness (K7)."""
