"""Ways to make records, each a file: its settings, and the script of one try."""
