"""Drivers: AF_PACKET rings and capture files, and the filters in front of them."""
