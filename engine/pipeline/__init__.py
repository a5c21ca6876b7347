"""The loop of one worker: decode, parse, process, write records."""
