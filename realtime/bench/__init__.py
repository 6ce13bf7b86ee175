"""`dhmd-live bench`: the performance of this machine."""
