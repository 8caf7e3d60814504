"""Google Cloud Tasks as a clock of schedules: it calls when an occurrence is due, and the database decides what fires."""
