"""What Prometheus reads of a process."""
