"""The words of Talon, pure: ids, entries, sessions, turns, errors. No I/O, no clock, no randomness."""
