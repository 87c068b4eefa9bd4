"""What a run is doing now, read from its folder only: no connection to the ranks, no torch."""
