"""`dhmd-live bench`: what this machine does."""
