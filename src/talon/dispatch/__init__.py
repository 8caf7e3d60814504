"""Dispatch: how waiting work is noticed."""
