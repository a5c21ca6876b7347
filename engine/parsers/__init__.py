"""Application protocols: what is recognised, parsed and registered as media."""
