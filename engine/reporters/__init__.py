"""Reporters and the sender process that drives them."""
