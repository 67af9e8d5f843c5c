"""What stored results say about a run to come."""
