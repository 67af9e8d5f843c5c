"""Every figure of a report, and the script that redraws it."""
