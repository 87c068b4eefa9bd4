"""What a run is doing now, read from its folder alone: no connection to the ranks, no torch."""
