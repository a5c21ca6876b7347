"""Processors: filter and label."""
