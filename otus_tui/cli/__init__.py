"""The command line: one module per verb; importing it never imports textual."""
