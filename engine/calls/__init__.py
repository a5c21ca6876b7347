"""Dialogs and media streams: one process merges the evidence of all workers and answers queries."""
