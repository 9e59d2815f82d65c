"""How a sweep's tasks get done in other processes, of this machine or of a cluster."""
