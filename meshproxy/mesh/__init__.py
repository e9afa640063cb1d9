"""What this proxy knows: its identity (renewed) and its configuration (watched)."""
