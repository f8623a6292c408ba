"""What a run will need, known before it is started: memory, disk, machines."""
