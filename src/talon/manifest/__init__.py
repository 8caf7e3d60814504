"""Manifests, pure: kinds and their fields, validation, template -> agent resolution, diff. YAML reaches this room as bytes."""
