"""The HTTP surface: one module per resource, one place that turns errors into problems."""
