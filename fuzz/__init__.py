"""Requests that nobody thought of: the API of a booted Talon against its own OpenAPI document, by schemathesis."""
