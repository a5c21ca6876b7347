"""The front end and the command line."""
